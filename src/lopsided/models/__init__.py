"""The models map inputs to scores: an encoder, a body and a head."""
