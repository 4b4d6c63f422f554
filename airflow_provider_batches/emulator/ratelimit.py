from __future__ import annotations

from airflow_provider_batches.emulator.batch import timestamp


class RateLimit:
    """A token bucket that holds the requests of one minute and is refilled evenly."""

    def __init__(self, per_minute: int | None) -> None:
        self.limit = per_minute or 1_000_000
        self.left = float(self.limit)
        self._filled_at = 0.0

    def take(self, now: float) -> float:
        """Return 0 if the request is allowed, otherwise the seconds until the next one is."""
        self.left = min(self.limit, self.left + (now - self._filled_at) * self.limit / 60)
        self._filled_at = now
        if self.left < 1:
            return (1 - self.left) * 60 / self.limit
        self.left -= 1
        return 0.0

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers with the remaining requests."""
        full_at = now + (self.limit - self.left) * 60 / self.limit
        return {
            "anthropic-ratelimit-requests-limit": str(self.limit),
            "anthropic-ratelimit-requests-remaining": str(int(self.left)),
            "anthropic-ratelimit-requests-reset": timestamp(full_at, "seconds"),
        }
