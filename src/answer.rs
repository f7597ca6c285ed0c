//! The engine's answers on their way to the client: only what the agent may see.
