//! sockguard stands between the Docker Engine's socket and programs that are not trusted with the host.
//!
//! The words: an **agent** is a client program, everything it makes belongs to its **owner**; an object is **own**,
//! **foreign** or **shared**, by its owner label; the **engine** is the real Docker Engine; a **policy** says what an
//! agent may do; a **verdict** is a permit or a refusal.
//!
//! The life of a request, in ten steps:
//! 1. [`server`] accepts a connection; the listener's identity says which agent it is, or [`identity`] finds out
//! 2. [`proxy`] receives the head
//! 3. [`route`] names the endpoint
//! 4. [`query`] and [`json`] read the parameters and the body
//! 5. [`judge`] decides, asking the [`world`] who owns what
//! 6. the guards of [`judge`] make the [`permit`]: the request rebuilt from what was judged
//! 7. [`audit`] writes the decision
//! 8. [`steps`] does what has to be done around the request
//! 9. [`engine`] sends it
//! 10. the answer streams back through [`answer`], or [`tunnel`] joins the two sides of a hijacked connection, and hands on
//!     logs that are followed
#![expect(async_fn_in_trait, reason = "everything runs on one thread, so no future has to be Send")]

pub mod answer;
pub mod archive;
pub mod audit;
pub mod body;
pub mod cgroups;
pub mod cli;
pub mod config;
pub mod dockerfile;
pub mod duration;
pub mod engine;
pub mod hold;
pub mod identity;
pub mod json;
pub mod judge;
pub mod listen;
pub mod log;
pub mod lookup;
pub mod nearest;
pub mod owner;
pub mod peer;
pub mod permit;
pub mod place;
pub mod policy;
pub mod proxy;
pub mod query;
pub mod quota;
pub mod reap;
pub mod reference;
pub mod refusal;
pub mod registry;
pub mod route;
pub mod schema;
pub mod seal;
pub mod server;
pub mod steps;
pub mod toml_file;
pub mod tunnel;
pub mod world;
