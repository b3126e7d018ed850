//! What the library promises, tried on a real Parse Server 9.10 that the tests install and start themselves.

mod generate;
mod harness;
mod js_sdk;
mod matcher;
mod support;
mod transcript;
