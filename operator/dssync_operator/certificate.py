"""The certificate of the operator's own endpoint, as a mounted Secret holds and renews it."""

import logging
import ssl
from pathlib import Path

from dssync_operator.errors import SettingsError

_log = logging.getLogger(__name__)


class Certificate:
    """A server's TLS context that follows its files."""

    def __init__(self, folder: Path) -> None:
        """Read ``tls.crt`` and ``tls.key``.

        Raises:
            SettingsError: They are no certificate and its key.
        """
        self._files = (folder / "tls.crt", folder / "tls.key")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            self._loaded = self._stamp()
            self.context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"DSSYNC_OPERATOR_TLS_FOLDER is {folder}; expected a certificate and its key in "
                f"tls.crt and tls.key there: {error}"
            ) from error

    def refresh(self) -> None:
        """Show a renewed certificate from the next connection on; keep the old one if it is bad."""
        try:
            stamp = self._stamp()
            if stamp == self._loaded:
                return
            self._loaded = stamp
            self.context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            _log.warning("the renewed certificate %s cannot be used: %s", self._files[0], error)

    def _stamp(self) -> tuple[int, ...]:
        return tuple(file.stat().st_mtime_ns for file in self._files)
