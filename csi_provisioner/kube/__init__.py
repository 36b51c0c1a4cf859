"""The Kubernetes side: client, caches, events, leader election. Everything that speaks to the API server lives here."""
