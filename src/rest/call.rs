//! Cloud functions.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::rest::change::part;
use crate::rest::handle::{Effect, Rest, Task, With};
use crate::rest::http::{Body, Method, Place};

#[derive(serde::Deserialize)]
struct Answer {
    /// Missing if the function returned nothing.
    #[serde(default)]
    result: serde_json::Value,
}

impl Rest {
    /// Calls a cloud function and returns its result; `()` fits a function that returns nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the function throws, with code 141 unless it sets another one;
    /// [`ErrorKind::Decode`] if the result does not fit the type. Otherwise the [common
    /// errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// # server.function("add", |call| Ok(json!(call.params()["a"].as_i64().unwrap_or(0) + 1)));
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let sum: i64 = client.rest().call("add", &json!({"a": 1}))?;
    /// assert_eq!(sum, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call<T: DeserializeOwned>(&self, function: &str, params: &(impl Serialize + ?Sized)) -> Result<T> {
        let purpose = format!("call the function {function:?}");
        let json = serde_json::to_string(params).map_err(|error| {
            let text = format!("the parameters of {function:?} cannot be written as JSON");
            Error::with_source(ErrorKind::InvalidValue, text, error)
        })?;
        let path = ["functions", part("name of a function", function)?];
        let task = Task {
            method: Method::Post,
            place: Place::Path(&path),
            body: Body::Json(json),
            effect: Effect::Writes,
            purpose,
        };
        let answer: Answer = self.ask(&task, With::Session, |text| serde_json::from_str(text))?;
        serde_json::from_value(answer.result).map_err(|error| {
            let text = format!("the result of the function {function:?} does not fit the type");
            Error::with_source(ErrorKind::Decode, text, error)
        })
    }
}
