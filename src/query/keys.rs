//! The names of fields in a query: one name or several. Must not know of queries.

/// One or several names of fields: `"score"`, `["score", "name"]`, a `Vec` or a slice.
///
/// This trait is sealed: it is implemented only for the types listed here.
pub trait Keys: sealed::Keys {}

impl<T: sealed::Keys> Keys for T {}

pub(crate) mod sealed {
    pub trait Keys {
        fn into_names(self) -> Vec<String>;
    }

    impl Keys for &str {
        fn into_names(self) -> Vec<String> {
            vec![self.to_owned()]
        }
    }

    impl Keys for String {
        fn into_names(self) -> Vec<String> {
            vec![self]
        }
    }

    impl Keys for &String {
        fn into_names(self) -> Vec<String> {
            vec![self.clone()]
        }
    }

    impl<S: Into<String>, const N: usize> Keys for [S; N] {
        fn into_names(self) -> Vec<String> {
            self.into_iter().map(Into::into).collect()
        }
    }

    impl<S: Into<String>> Keys for Vec<S> {
        fn into_names(self) -> Vec<String> {
            self.into_iter().map(Into::into).collect()
        }
    }

    impl<S: AsRef<str>> Keys for &[S] {
        fn into_names(self) -> Vec<String> {
            self.iter().map(|name| name.as_ref().to_owned()).collect()
        }
    }

    impl<S: AsRef<str>, const N: usize> Keys for &[S; N] {
        fn into_names(self) -> Vec<String> {
            self.as_slice().into_names()
        }
    }

    impl<S: AsRef<str>> Keys for &Vec<S> {
        fn into_names(self) -> Vec<String> {
            self.as_slice().into_names()
        }
    }
}
