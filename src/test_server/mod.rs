//! An in-process LiveQuery server.
