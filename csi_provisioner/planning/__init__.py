"""The rules of provisioning and deletion: facts in, frozen plan out.

Nothing here waits, reads, writes, logs, or knows the time. A rule that says no raises `refusal.Refusal`;
what is worth a log line comes back as a warning in the plan.
"""
