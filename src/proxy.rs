//! What becomes of one request: the ten steps.
