//! What the table cases need: reading them, the world they describe, and the two ways to run them.

pub mod case;
pub mod facts;
pub mod function;
pub mod pretty;
pub mod routes;
