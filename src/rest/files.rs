//! Files: upload, download, delete. It does not know the objects that hold them.

use std::fmt;
use std::io::{self, Read};

use serde::Deserialize;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::rest::change::part;
use crate::rest::handle::{Effect, Rest, Task, With};
use crate::rest::http::{Body, Method, Place, Source};
use crate::types::File;

#[derive(Deserialize)]
struct Stored {
    name: String,
    url: String,
}

/// A file that is being downloaded: [`Rest::download`]. It is a reader; [`bytes`](Self::bytes) reads all of it.
#[must_use = "nothing is read until it is asked for"]
pub struct Download {
    name: String,
    content_type: Option<String>,
    content_length: Option<u64>,
    reader: ureq::BodyReader<'static>,
}

impl Download {
    /// Returns the content type according to the server, such as `image/png`.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Returns the length in bytes according to the server.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Reads the whole file, if it is not longer than `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] if it is longer; [`ErrorKind::ConnectionLost`] if the connection broke
    /// down before its end; [`ErrorKind::Timeout`] if nothing arrived for the
    /// [`fetch_timeout`](crate::ClientBuilder::fetch_timeout).
    pub fn bytes(mut self, limit: u64) -> Result<Vec<u8>> {
        let too_long = || {
            let text = format!("the file {} is longer than {limit} bytes", self.name);
            Error::new(ErrorKind::InvalidValue, text)
        };
        if self.content_length.is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        let read = (&mut self.reader)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes);
        if let Err(error) = read {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            let is_late =
                error.kind() == io::ErrorKind::TimedOut || matches!(cause, Some(ureq::Error::Timeout(_)));
            let kind = match is_late {
                true => ErrorKind::Timeout,
                false => ErrorKind::ConnectionLost,
            };
            let text = format!("the file {} did not arrive in full", self.name);
            return Err(Error::with_source(kind, text, error));
        }
        if bytes.len() as u64 > limit {
            return Err(too_long());
        }
        Ok(bytes)
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("name", &self.name)
            .field("content_type", &self.content_type)
            .field("content_length", &self.content_length)
            .finish_non_exhaustive()
    }
}

/// # Files
///
/// A file is first stored separately, and then set as the value of a field, with its URL: an object with a
/// file that has no URL crashes a Parse Server 9.10 with LiveQuery (`Tried to encode an unsaved file`,
/// `ParseCloudCodePublisher.js`).
///
/// A file may take as long as it needs while data moves: the
/// [`fetch_timeout`](crate::ClientBuilder::fetch_timeout) applies to each piece of it.
impl Rest {
    /// Stores a file under this name, to which the server adds a random prefix, and with this content type,
    /// such as `image/png`.
    ///
    /// Unless its settings say otherwise, Parse Server only accepts files from users who have signed up (5.0
    /// and later), and files of at most 20 MB.
    ///
    /// # Errors
    /// Code 130 for a file that the server does not accept: an empty one, one from a user who may not store
    /// files, or one of a type that is not allowed; code 122 for a name with characters other than letters,
    /// digits, and `@. ~_-`. Otherwise the [common errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let rest = client.rest();
    /// # rest.sign_up("ann", "secret", &json!({}))?;
    /// let photo = rest.upload("photo.png", "image/png", b"\x89PNG..")?;
    /// let player = rest.create("Player", &json!({"name": "Ann", "photo": photo}))?;
    ///
    /// let photo: parse_livequery::File = player.get_as("photo")?;
    /// assert_eq!(rest.download(&photo)?.bytes(1_000_000)?, b"\x89PNG..");
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload(&self, name: &str, content_type: &str, bytes: &[u8]) -> Result<File> {
        self.store(name, Body::Bytes(content_type, bytes))
    }

    /// Like [`upload`](Self::upload), with bytes that are read to their end as they are sent, for example
    /// from an open file. What has been read cannot be sent again, so an upload that has begun is not
    /// repeated.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] if the reader fails; otherwise those of [`upload`](Self::upload).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, File};
    /// # fn upload(client: &Client) -> Result<File, Box<dyn std::error::Error>> {
    /// let film = std::fs::File::open("film.mp4")?;
    /// let film = client.rest().upload_from("film.mp4", "video/mp4", film)?;
    /// # Ok(film)
    /// # }
    /// ```
    pub fn upload_from(&self, name: &str, content_type: &str, reader: impl Read) -> Result<File> {
        let source = Source::new(reader);
        self.store(name, Body::Stream(content_type, &source))
    }

    /// Starts to download a file.
    ///
    /// The session token and the keys are sent with the request if the file's URL belongs to the REST API. A
    /// file that is stored elsewhere, for example at a storage provider, is requested without them.
    ///
    /// # Errors
    /// Code 101 if the file does not exist; code 119 if the server's settings do not let this user download
    /// it. Otherwise the [common errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use std::io;
    /// # use parse_livequery::{File, rest::Rest};
    /// # fn save(rest: &Rest, film: &File) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut download = rest.download(film)?;
    /// let mut file = std::fs::File::create("film.mp4")?;
    /// io::copy(&mut download, &mut file)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn download(&self, file: &File) -> Result<Download> {
        let name = file.name();
        let invalid = |error: url::ParseError| {
            let text = format!("the URL of the file {name} is not valid");
            Error::with_source(ErrorKind::InvalidValue, text, error)
        };
        let url = file.url().map(Url::parse).transpose().map_err(invalid)?;
        let path = [&["files", self.http()?.application_id()], &*parts(name)?].concat();
        let place = match &url {
            Some(url) if matches!(url.scheme(), "http" | "https") => Place::Url(url),
            Some(url) => {
                let text = format!(
                    "the URL of the file {name} has the scheme `{}`; it must be `http` or `https`",
                    url.scheme()
                );
                return Err(Error::new(ErrorKind::InvalidValue, text));
            }
            None => Place::Path(&path),
        };
        let task = Task {
            method: Method::Get,
            place,
            body: Body::Nothing,
            effect: Effect::Reads,
            purpose: format!("send the file {name}"),
        };
        let response = self.repeat(&task, With::Session, |http, request| {
            http.open(request).map_err(|mut failure| {
                if failure.status == Some(404) && failure.error.code().is_none() {
                    let text = format!("the server has no file {name}: HTTP 404");
                    failure.error = Error::server(ErrorKind::Server, 101, text);
                }
                failure
            })
        })?;
        let (head, body) = response.into_parts();
        let content_type = head.headers.get("Content-Type");
        Ok(Download {
            name: name.to_owned(),
            content_type: content_type.and_then(|value| Some(value.to_str().ok()?.to_owned())),
            content_length: body.content_length(),
            reader: body.into_reader(),
        })
    }

    /// Deletes a file, which requires the master key. Objects that refer to it keep doing so.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] without the master key; code 153 if the server cannot delete it. Otherwise the
    /// [common errors](crate::rest#errors).
    pub fn delete_file(&self, file: &File) -> Result<()> {
        let path = [&["files"], &*parts(file.name())?].concat();
        let task = Task {
            method: Method::Delete,
            place: Place::Path(&path),
            body: Body::Nothing,
            effect: Effect::Writes,
            purpose: format!("delete the file {}", file.name()),
        };
        // The answer is empty.
        self.ask(&task, With::Session, |_| Ok(()))
    }

    fn store(&self, name: &str, body: Body<'_>) -> Result<File> {
        let path = ["files", part("name of a file", name)?];
        let task = Task {
            method: Method::Post,
            place: Place::Path(&path),
            body,
            effect: Effect::Writes,
            purpose: format!("store the file {name}"),
        };
        let stored: Stored = self.ask(&task, With::Session, |text| serde_json::from_str(text))?;
        Ok(File::new(stored.name).with_url(stored.url))
    }
}

/// The name of a file may contain folders.
fn parts(name: &str) -> Result<Vec<&str>> {
    name.split('/').map(|name| part("name of a file", name)).collect()
}
