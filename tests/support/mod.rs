//! What the table cases need: reading them, the world they describe, and the two ways to run them.

pub mod binary;
pub mod case;
pub mod engine;
pub mod facts;
pub mod function;
pub mod http;
pub mod pretty;
pub mod routes;
pub mod tar;
