"""Does averaging in small groups cost accuracy? Both examples, grid beside allreduce."""
