"""Finalizers on sources, taken off when nobody reads from the source any longer."""
