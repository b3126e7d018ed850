//! Uploaded files, in memory. Must not know of HTTP.
//!
//! Modelled on `FilesRouter.js` and `FilesController.js` of Parse Server 9.10.

use serde_json::Value;

use super::caller::{Caller, Refusal};
use super::state::{State, StoredFile};

impl State {
    /// Stores a file. Returns its name.
    pub(super) fn store_file(
        &mut self,
        name: &str,
        file: StoredFile,
        caller: &Caller,
    ) -> Result<String, Refusal> {
        let refused = |who: &str| Refusal::of(130, format!("File upload by {who} is disabled."));
        match &caller.user {
            _ if caller.has_master_key => {}
            None => return Err(refused("public")),
            Some(user) if self.is_anonymous(user) => return Err(refused("anonymous user")),
            Some(_) => {}
        }
        if name.len() > 128 {
            return Err(Refusal::of(122, "Filename too long."));
        }
        let may_begin = |character: char| character == '_' || character.is_ascii_alphanumeric();
        let may_follow = |character: char| may_begin(character) || "@. ~-".contains(character);
        if !name.starts_with(may_begin) || !name.chars().all(may_follow) {
            return Err(Refusal::of(122, "Filename contains invalid characters."));
        }
        if file.bytes.is_empty() {
            return Err(Refusal::of(130, "Invalid file upload."));
        }
        let name = format!("{:032x}_{name}", rand::random::<u128>());
        self.files.insert(name.clone(), file);
        Ok(name)
    }

    pub(super) fn delete_file(&mut self, name: &str, caller: &Caller) -> Result<(), Refusal> {
        if !caller.has_master_key {
            return Err(Refusal::new(403, None, "unauthorized: master key is required"));
        }
        let file = self.files.remove(name);
        let gone = || Refusal::of(153, "Could not delete file.");
        file.map(drop).ok_or_else(gone)
    }

    fn is_anonymous(&self, user: &str) -> bool {
        let user = self.object("_User", user);
        let services = user.and_then(|user| user.get("authData"));
        services
            .and_then(Value::as_object)
            .is_some_and(|services| services.contains_key("anonymous"))
    }
}
