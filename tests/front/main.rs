//! The guarded socket as bytes: HTTP on both sides, hijacked streams, ends and cuts; and checks of binds, which hang on how
//! the engine answers. A small engine does what each test asks of it and keeps what it was sent.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod fake;
mod hijack;
mod hold;
mod http;
mod life;
