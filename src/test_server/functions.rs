//! Cloud functions, which the test provides as closures. Must not know of HTTP.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::caller::{Caller, Refusal};
use crate::fence;
use crate::fenced::Fenced;

/// A call of a cloud function.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    params: Value,
    user: Option<String>,
    has_master_key: bool,
}

impl FunctionCall {
    /// The arguments of the call: a JSON object.
    #[must_use]
    pub fn params(&self) -> &Value {
        &self.params
    }

    /// The id of the calling user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether the call came with the master key.
    #[must_use]
    pub fn has_master_key(&self) -> bool {
        self.has_master_key
    }
}

type Function = dyn Fn(&FunctionCall) -> Result<Value, String> + Send + Sync;

/// The functions by name.
#[derive(Default)]
pub(super) struct Functions(Mutex<HashMap<String, Arc<Function>>>);

impl Functions {
    pub(super) fn set(
        &self,
        name: &str,
        function: impl Fn(&FunctionCall) -> Result<Value, String> + Send + Sync + 'static,
    ) {
        let function = Fenced::new(function);
        let function: Arc<Function> = Arc::new(move |call| match function.get() {
            Some(function) => function(call),
            None => Ok(Value::Null),
        });
        // Dropped outside the lock.
        let old = self.0.lock().insert(name.to_owned(), function);
        drop(old);
    }

    /// Calls a function, with no lock held.
    pub(super) fn call(&self, name: &str, params: Value, caller: &Caller) -> Result<Value, Refusal> {
        let Some(function) = self.0.lock().get(name).cloned() else {
            return Err(Refusal::of(141, format!("Invalid function: {name:?}")));
        };
        let call = FunctionCall {
            params,
            user: caller.user.clone(),
            has_master_key: caller.has_master_key,
        };
        let thrown = |text: String| Refusal::of(141, text);
        let result = fence::run(|| function(&call)).map_err(thrown)?.map_err(thrown)?;
        Ok(json!({"result": result}))
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}
