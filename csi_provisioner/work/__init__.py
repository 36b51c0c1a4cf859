"""When work is done: backoff per key, a schedule of due times, and the loop that runs one task a key."""
