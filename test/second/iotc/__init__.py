"""A second implementation of docs/protocol.md, written from that text alone and kept apart from the first."""
