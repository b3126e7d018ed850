//! Which server, and which user: from options, the environment, a file of profiles and prompts. It knows
//! nothing about single commands.
//!
//! There are no options for secrets: every user of the machine can read the arguments of a program.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use clap::{Args, ValueEnum};
use etcetera::{AppStrategy, AppStrategyArgs, choose_app_strategy};
use parse_livequery::{Client, ClientBuilder};

use crate::exit::Failure;

/// The options that every command has.
#[derive(Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Connection {
    /// The server: wss://host/path, or ws://host:port/path [environment: PARSE_SERVER_URL]
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,

    /// The application id [environment: PARSE_APPLICATION_ID]
    #[arg(long, global = true, value_name = "ID")]
    app_id: Option<String>,

    /// Take all of these from this profile instead of the environment
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,

    /// Use another file of profiles [environment: LIVEQUERY_PROFILES]
    #[arg(long, global = true, value_name = "FILE")]
    profiles: Option<PathBuf>,

    /// Ask for a secret, without showing what is typed
    #[arg(long, global = true, value_name = "SECRET")]
    ask: Vec<SecretName>,

    /// Where the REST API is, if not at the URL of the server [environment: PARSE_REST_URL]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    rest_url: Option<String>,

    /// The proxy: http:// or socks5h:// [default: from HTTPS_PROXY, ALL_PROXY and NO_PROXY]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    proxy: Option<String>,

    /// Use no proxy, whatever the environment says
    #[arg(long, global = true, conflicts_with = "proxy", hide_short_help = true)]
    without_proxy: bool,

    /// A certificate to trust in addition to the system's, in PEM [environment: PARSE_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    ca: Option<PathBuf>,

    /// The version of the Parse Server, such as 4.10.20, if it is old [environment: PARSE_SERVER_VERSION]
    #[arg(long, global = true, value_name = "VERSION", hide_short_help = true)]
    parse_server: Option<String>,
}

/// The kinds of secrets. The order is that of [`Settings::secrets`].
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SecretName {
    JavascriptKey,
    ClientKey,
    RestApiKey,
    WindowsKey,
    MasterKey,
    SessionToken,
}

/// The complete settings. They hold secrets, so there is no `Debug`.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) server: String,
    app_id: String,
    rest_url: Option<String>,
    proxy: Option<String>,
    without_proxy: bool,
    pub(crate) ca: Option<Vec<u8>>,
    parse_server: Option<String>,
    secrets: [Option<String>; 6],
}

/// The rights with which a client connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Those of the settings.
    Configured,
    /// With neither master key nor session token.
    Public,
    /// With the session token and without the master key.
    User,
    /// With the master key and without the session token.
    Master,
}

impl Connection {
    /// # Errors
    /// A setting is missing, or a file cannot be read.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let source = match &self.profile {
            Some(name) => Source::profile(&self.file()?, name)?,
            None => Source::Environment,
        };
        let setting = |option: Option<&String>, name: &str| {
            option
                .filter(|text| !text.is_empty())
                .cloned()
                .or_else(|| source.get(name))
        };
        let missing = |option: &str, variable: &str| {
            let text =
                format!("{option} is missing: give it, or set {variable}, or name a --profile that has it");
            Failure::Usage(text)
        };
        let server = setting(self.server.as_ref(), "server")
            .ok_or_else(|| missing("--server <URL>", "PARSE_SERVER_URL"))?;
        let app_id = setting(self.app_id.as_ref(), "app-id")
            .ok_or_else(|| missing("--app-id <ID>", "PARSE_APPLICATION_ID"))?;
        if self.proxy.as_ref().is_some_and(|url| url.contains('@')) {
            let text = "--proxy has a user or a password, which every user of this machine could read: put it into a \
                        profile, or into HTTPS_PROXY or ALL_PROXY";
            return Err(Failure::Usage(text.to_owned()));
        }
        let ca = match self.ca.clone().or_else(|| source.get("ca").map(PathBuf::from)) {
            Some(path) => Some(fs::read(&path).map_err(|error| {
                Failure::Usage(format!(
                    "the certificate {} cannot be read: {error}",
                    path.display()
                ))
            })?),
            None => None,
        };
        let mut secrets = SecretName::value_variants().iter().map(|name| {
            if self.ask.contains(name) {
                name.ask()
            } else {
                Ok(source.get(name.as_str()))
            }
        });
        let mut next = || secrets.next().unwrap_or(Ok(None));
        Ok(Settings {
            server,
            app_id,
            rest_url: setting(self.rest_url.as_ref(), "rest-url"),
            proxy: if self.without_proxy {
                None
            } else {
                setting(self.proxy.as_ref(), "proxy")
            },
            without_proxy: self.without_proxy,
            ca,
            parse_server: setting(self.parse_server.as_ref(), "parse-server"),
            secrets: [next()?, next()?, next()?, next()?, next()?, next()?],
        })
    }

    fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.profiles {
            return Ok(path.clone());
        }
        if let Some(path) = env::var_os("LIVEQUERY_PROFILES").filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let place = choose_app_strategy(AppStrategyArgs {
            top_level_domain: String::new(),
            author: String::new(),
            app_name: "livequery".to_owned(),
        });
        place
            .map(|place| place.in_config_dir("profiles.toml"))
            .map_err(|_| {
                Failure::Usage("this system has no home directory: name the file with --profiles".to_owned())
            })
    }
}

impl SecretName {
    /// Its name in the file and for `--ask`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::JavascriptKey => "javascript-key",
            Self::ClientKey => "client-key",
            Self::RestApiKey => "rest-api-key",
            Self::WindowsKey => "windows-key",
            Self::MasterKey => "master-key",
            Self::SessionToken => "session-token",
        }
    }

    fn ask(self) -> Result<Option<String>, Failure> {
        prompt(&self.as_str().replace('-', " ")).map(|text| Some(text).filter(|text| !text.is_empty()))
    }
}

impl Settings {
    pub(crate) fn has(&self, name: SecretName) -> bool {
        self.secret(name).is_some()
    }

    /// The names of the keys that are set, for messages.
    pub(crate) fn given_keys(&self) -> Vec<&'static str> {
        let names = SecretName::value_variants().iter();
        let keys = names.filter(|name| **name != SecretName::SessionToken && self.has(**name));
        keys.map(|name| name.as_str()).collect()
    }

    /// Whether the connection to the server may go through a proxy.
    pub(crate) fn may_have_proxy(&self, url: &url::Url) -> bool {
        if self.without_proxy {
            return false;
        }
        let is_set = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .iter()
                .any(|name| env::var_os(name).is_some_and(|url| !url.is_empty()))
        };
        let is_here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        self.proxy.is_some() || !is_here && (is_set("HTTPS_PROXY") || is_set("ALL_PROXY"))
    }

    /// The same settings for the LiveQuery server that runs beside the REST API, if that has another address.
    pub(crate) fn beside_rest(&self) -> Option<Self> {
        let rest = self.rest_url.clone()?;
        (rest.split_once("://").map(|(_, place)| place)
            != self.server.split_once("://").map(|(_, place)| place))
        .then(|| Self {
            server: rest,
            ..self.clone()
        })
    }

    /// The builder of a client in this role.
    pub(crate) fn builder(&self, role: Role) -> ClientBuilder {
        let mut builder = Client::builder(&self.server, &self.app_id);
        if let Some(url) = &self.rest_url {
            builder = builder.rest_url(url);
        }
        if let Some(url) = &self.proxy {
            builder = builder.proxy(url);
        }
        if self.without_proxy {
            builder = builder.without_proxy();
        }
        if let Some(certificate) = &self.ca {
            builder = builder.add_root_certificate(certificate);
        }
        if let Some(version) = &self.parse_server {
            builder = builder.parse_server(version);
        }
        for name in SecretName::value_variants() {
            let Some(secret) = self.secret(*name) else {
                continue;
            };
            builder = match name {
                SecretName::JavascriptKey => builder.javascript_key(secret),
                SecretName::ClientKey => builder.client_key(secret),
                SecretName::RestApiKey => builder.rest_api_key(secret),
                SecretName::WindowsKey => builder.windows_key(secret),
                SecretName::MasterKey if matches!(role, Role::Configured | Role::Master) => {
                    builder.master_key(secret)
                }
                SecretName::SessionToken if matches!(role, Role::Configured | Role::User) => {
                    builder.session_token(secret)
                }
                SecretName::MasterKey | SecretName::SessionToken => builder,
            };
        }
        builder
    }

    fn secret(&self, name: SecretName) -> Option<&str> {
        let names = SecretName::value_variants().iter();
        let (_, secret) = names.zip(&self.secrets).find(|(other, _)| **other == name)?;
        secret.as_deref()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "this program",
            Self::Public => "the public",
            Self::User => "the user",
            Self::Master => "the master key",
        })
    }
}

/// Where settings come from that are not given as options.
enum Source {
    Environment,
    Profile(BTreeMap<String, String>),
}

impl Source {
    fn profile(path: &Path, name: &str) -> Result<Self, Failure> {
        let refused = |problem: String| Failure::Usage(format!("{}: {problem}", path.display()));
        let text = fs::read_to_string(path)
            .map_err(|error| refused(format!("the file of profiles cannot be read: {error}")))?;
        // The error itself quotes the file, which may contain a key.
        let mut profiles: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
            refused(format!(
                "line {line} cannot be read: a profile is a line `[name]`, and lines like `server = \"wss://..\"` \
                 below it, all values in quotes"
            ))
        })?;
        let Some(profile) = profiles.remove(name) else {
            let names = profiles.into_keys().collect::<Vec<_>>().join(", ");
            return Err(refused(format!(
                "there is no profile `{name}`; there are: {names}"
            )));
        };
        if let Some(unknown) = profile.keys().find(|name| variable(name).is_none()) {
            let names = NAMES.map(|(name, _)| name).join(", ");
            return Err(refused(format!(
                "`{unknown}` in the profile `{name}` is not a setting; the settings are: {names}"
            )));
        }
        warn_of_readers(path, &profile);
        Ok(Self::Profile(profile))
    }

    /// A variable that is empty counts as not set.
    fn get(&self, name: &str) -> Option<String> {
        match self {
            Self::Environment => env::var(variable(name)?).ok(),
            Self::Profile(profile) => profile.get(name).cloned(),
        }
        .filter(|text| !text.is_empty())
    }
}

#[cfg(unix)]
fn warn_of_readers(path: &Path, profile: &BTreeMap<String, String>) {
    use std::os::unix::fs::PermissionsExt;

    let has_secrets = SecretName::value_variants()
        .iter()
        .any(|name| profile.contains_key(name.as_str()));
    let is_open = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    if has_secrets && is_open {
        let path = path.display();
        eprintln!(
            "warning: other users can read {path}, which holds secrets; `chmod 600 {path}` prevents that"
        );
    }
}

#[cfg(not(unix))]
fn warn_of_readers(_: &Path, _: &BTreeMap<String, String>) {}

/// Asks on the terminal; without one, reads the next line of standard input.
///
/// # Errors
/// There is nothing to read from.
pub(crate) fn prompt(what: &str) -> Result<String, Failure> {
    let answer = if io::stdin().is_terminal() {
        rpassword::prompt_password(format!("{what}: "))
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line).and_then(|count| {
            if count == 0 {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(line)
            }
        })
    };
    match answer {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(Failure::Usage(format!("the {what} cannot be read: {error}"))),
    }
}

fn variable(setting: &str) -> Option<&'static str> {
    NAMES
        .iter()
        .find(|(name, _)| *name == setting)
        .map(|(_, variable)| *variable)
}

/// The names of the settings, in the file and in the environment.
const NAMES: [(&str, &str); 12] = [
    ("server", "PARSE_SERVER_URL"),
    ("app-id", "PARSE_APPLICATION_ID"),
    ("rest-url", "PARSE_REST_URL"),
    ("proxy", "PARSE_PROXY"),
    ("ca", "PARSE_CA_FILE"),
    ("parse-server", "PARSE_SERVER_VERSION"),
    ("javascript-key", "PARSE_JAVASCRIPT_KEY"),
    ("client-key", "PARSE_CLIENT_KEY"),
    ("rest-api-key", "PARSE_REST_API_KEY"),
    ("windows-key", "PARSE_WINDOWS_KEY"),
    ("master-key", "PARSE_MASTER_KEY"),
    ("session-token", "PARSE_SESSION_TOKEN"),
];

/// A chapter of the help.
pub(crate) const SECRETS_AND_PROFILES: &str = "\
There are no options for secrets: every user of the machine can read the arguments of a program.
They come from the environment, from a profile, or, with --ask, from the keyboard:
  PARSE_JAVASCRIPT_KEY, PARSE_CLIENT_KEY, PARSE_REST_API_KEY, PARSE_WINDOWS_KEY
                        the keys of the application, if the server requires them
  PARSE_MASTER_KEY      gives access to all objects, whatever their ACL
  PARSE_SESSION_TOKEN   the user to act as; `livequery login` prints one

The file of profiles is ~/.config/livequery/profiles.toml; on Windows it is
%APPDATA%\\livequery\\config\\profiles.toml. With --profile NAME the program ignores the
environment, so that no key goes to another server:
  [staging]
  server = \"wss://staging.example.com/parse\"
  app-id = \"APP_ID\"
  javascript-key = \"KEY\"
  # also: rest-url, proxy, ca, parse-server, client-key, rest-api-key, windows-key,
  #       master-key, session-token";
