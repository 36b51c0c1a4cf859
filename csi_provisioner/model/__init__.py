"""Data every layer may import: slim Kubernetes Structs, generated CSI messages, gRPC codes, the Outcome."""
