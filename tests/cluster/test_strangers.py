"""Two jobs beside each other: a pod of one knocks at the other's control port."""

from cluster.field import Field, Manifest, name_of, uid_of
from dssync import contract
from dssync_operator.resources import TOKEN_FOLDER, TOKEN_KEY

KNOCK = """
import asyncio, pathlib, sys
from dssync.control.transport import connect
from dssync.errors import AuthenticationError

async def knock(host, port, token):
    try:
        await connect(host, int(port), token, lambda frame: None, lambda: None)
    except AuthenticationError:
        return "refused"
    return "accepted"

token = pathlib.Path(sys.argv[3]).read_bytes().strip() if sys.argv[3] else b""
print(asyncio.run(knock(sys.argv[1], sys.argv[2], token)))
"""
TOKEN = f"{TOKEN_FOLDER}/{TOKEN_KEY}"


def knock(field: Field, pod: Manifest, address: str, token_file: str) -> str:
    host, _, port = address.rpartition(":")
    exec_ = ("exec", name_of(pod), "--container=worker", "--")
    return field.run(*exec_, "python", "-c", KNOCK, host, port, token_file).strip()


def test_only_pods_of_the_same_job_are_let_in(field: Field) -> None:
    stranger = Field(field.kubectl, field.mounts)
    try:
        for each in (field, stranger):
            each.apply(each.digits("--epochs", "2000", replicas=2))
        pods, strangers = field.training(2), stranger.training(2)
        address = field.lease()["metadata"]["annotations"][contract.RECORD_ADDRESS]
        mate = next(pod for pod in pods if uid_of(pod) != field.coordinator())

        answers = {
            "mate": knock(field, mate, address, TOKEN),
            "with its own token": knock(stranger, strangers[0], address, TOKEN),
            "without a token": knock(stranger, strangers[0], address, ""),
        }

        assert answers == {
            "mate": "accepted",
            "with its own token": "refused",
            "without a token": "refused",
        }
        assert field.world_size() == 2
        (leader,) = [pod for pod in pods if uid_of(pod) == field.coordinator()]
        assert field.metric(leader, "dssync_connections_refused_total") == 2
    finally:
        stranger.close()
