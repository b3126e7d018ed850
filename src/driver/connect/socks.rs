//! The tunnel through a SOCKS proxy (RFC 1928), with user and password (RFC 1929), without the socket.

use std::net::SocketAddr;

use url::{Host, Url};

use super::proxy::User;

/// A conversation with the proxy.
#[derive(Debug)]
pub(crate) struct Socks {
    step: Step,
    came: Vec<u8>,
    user: Option<User>,
    target: Target,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Method,
    User,
    Connect,
}

/// The destination of the tunnel.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The proxy resolves the name.
    Name(String, u16),
    Address(SocketAddr),
}

impl Target {
    /// The server as named in the URL.
    pub(crate) fn of(server: &Url) -> Self {
        let port = server.port_or_known_default().unwrap_or(80);
        match server.host() {
            Some(Host::Ipv4(ip)) => Self::Address((ip, port).into()),
            Some(Host::Ipv6(ip)) => Self::Address((ip, port).into()),
            Some(Host::Domain(name)) => Self::Name(name.to_owned(), port),
            None => Self::Name(String::new(), port),
        }
    }
}

/// The progress of the conversation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// More must come.
    Nothing,
    /// This must be sent next.
    Say(Vec<u8>),
    /// The tunnel is open.
    Open,
}

/// Why there is no tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not a SOCKS5 proxy.
    Strange,
    WantsUser,
    RefusesUser,
    /// The user, the password or the name of the server is longer than 255 bytes.
    TooLong,
    Reply(u8),
}

impl Socks {
    /// A conversation, and its first message.
    pub(crate) fn new(user: Option<User>, target: Target) -> (Self, Vec<u8>) {
        let greeting = if user.is_some() {
            vec![VERSION, 2, NO_USER, USER]
        } else {
            vec![VERSION, 1, NO_USER]
        };
        let socks = Self {
            step: Step::Method,
            came: Vec::new(),
            user,
            target,
        };
        (socks, greeting)
    }

    /// Takes the proxy's bytes one by one, because those after its last message belong to the tunnel.
    pub(crate) fn hear(&mut self, byte: u8) -> Result<Heard, Refusal> {
        self.came.push(byte);
        let said = match (self.step, &*self.came) {
            (Step::Method, [VERSION]) | (Step::User, [_]) => return Ok(Heard::Nothing),
            (Step::Method, [VERSION, NO_USER]) | (Step::User, [_, 0]) => {
                self.step = Step::Connect;
                self.request()?
            }
            (Step::Method, [VERSION, USER]) => {
                self.step = Step::User;
                self.introduction()?
            }
            (Step::Method, [VERSION, NO_METHOD]) if self.user.is_none() => return Err(Refusal::WantsUser),
            (Step::Method, [VERSION, NO_METHOD]) | (Step::User, _) => return Err(Refusal::RefusesUser),
            (Step::Connect, [VERSION] | [VERSION, 0] | [VERSION, 0, _] | [VERSION, 0, _, V4 | NAME | V6]) => {
                return Ok(Heard::Nothing);
            }
            (Step::Connect, [VERSION, 0, _, kind, length, ..]) => {
                // The proxy's own address and port, which are not needed.
                let address = match *kind {
                    V4 => 4,
                    V6 => 16,
                    _ => 1 + usize::from(*length),
                };
                let is_complete = self.came.len() == 4 + address + 2;
                return Ok(if is_complete { Heard::Open } else { Heard::Nothing });
            }
            (Step::Connect, [VERSION, reply]) if *reply != 0 => return Err(Refusal::Reply(*reply)),
            _ => return Err(Refusal::Strange),
        };
        self.came.clear();
        Ok(Heard::Say(said))
    }

    fn introduction(&self) -> Result<Vec<u8>, Refusal> {
        // The proxy chooses a method that was not offered.
        let user = self.user.as_ref().ok_or(Refusal::Strange)?;
        let mut said = vec![1];
        push(&mut said, &user.name)?;
        push(&mut said, &user.password)?;
        Ok(said)
    }

    fn request(&self) -> Result<Vec<u8>, Refusal> {
        let mut said = vec![VERSION, CONNECT, 0];
        let port = match &self.target {
            Target::Name(name, port) => {
                said.push(NAME);
                push(&mut said, name.as_bytes())?;
                *port
            }
            Target::Address(SocketAddr::V4(address)) => {
                said.push(V4);
                said.extend(address.ip().octets());
                address.port()
            }
            Target::Address(SocketAddr::V6(address)) => {
                said.push(V6);
                said.extend(address.ip().octets());
                address.port()
            }
        };
        said.extend(port.to_be_bytes());
        Ok(said)
    }
}

fn push(said: &mut Vec<u8>, text: &[u8]) -> Result<(), Refusal> {
    said.push(u8::try_from(text.len()).map_err(|_| Refusal::TooLong)?);
    said.extend_from_slice(text);
    Ok(())
}

impl Refusal {
    /// The text after the name of the proxy in an error about the tunnel to this server.
    pub(crate) fn text(&self, server: &str, has_user: bool) -> String {
        let advice = "check the proxy, or leave it out for this server (`NO_PROXY`, `without_proxy`)";
        match self {
            Self::Strange => "is not a SOCKS5 proxy; check its URL".to_owned(),
            Self::WantsUser => {
                "asks for a user and a password; put them into its URL, as in `socks5h://user:password@…`"
                    .to_owned()
            }
            Self::RefusesUser if has_user => "does not accept the user and password in its URL".to_owned(),
            Self::RefusesUser => "does not accept this client".to_owned(),
            Self::TooLong => {
                "cannot take a user, a password or a server name of more than 255 bytes".to_owned()
            }
            Self::Reply(reply) => {
                let reason = match reply {
                    1 => "it failed",
                    2 => "its rules do not allow it",
                    3 => "the network of the server cannot be reached from there",
                    4 => "the server cannot be reached from there",
                    5 => "the server refused the connection",
                    6 => "it took too long",
                    7 => "it does not know the command",
                    8 => "it does not know this kind of address",
                    _ => "for a reason that this client does not know",
                };
                format!("did not open a tunnel to {server}: {reason} (SOCKS reply {reply}); {advice}")
            }
        }
    }
}

const VERSION: u8 = 5;
const NO_USER: u8 = 0;
const USER: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socks: &mut Socks, said: &[u8]) -> Result<Heard, Refusal> {
        for (at, byte) in said.iter().enumerate() {
            match socks.hear(*byte)? {
                Heard::Nothing => {}
                heard => {
                    assert_eq!(at + 1, said.len(), "{heard:?} before the end");
                    return Ok(heard);
                }
            }
        }
        Ok(Heard::Nothing)
    }

    #[test]
    fn the_longest_conversation() {
        let user = User {
            name: b"me".to_vec(),
            password: b"secret".to_vec(),
        };
        let target = Target::of(&Url::parse("wss://example.com/parse").unwrap());
        let (mut socks, greeting) = Socks::new(Some(user), target);
        assert!(!format!("{socks:?}").contains("secret"));
        assert_eq!(greeting, [5, 2, 0, 2]);
        assert_eq!(
            hear(&mut socks, &[5, 2]),
            Ok(Heard::Say(b"\x01\x02me\x06secret".to_vec()))
        );
        let request = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb".to_vec();
        assert_eq!(hear(&mut socks, &[1, 0]), Ok(Heard::Say(request)));
        assert_eq!(
            hear(&mut socks, b"\x05\x00\x00\x03\x02ab\x00\x00"),
            Ok(Heard::Open)
        );
    }

    #[test]
    fn answer_table() {
        let cases: [(&[u8], Result<Heard, Refusal>); 9] = [
            (b"\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50", Ok(Heard::Open)),
            (
                b"\x05\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
                Ok(Heard::Open),
            ),
            (b"\x05\x00\x00\x03\x00\x00\x50", Ok(Heard::Open)),
            (b"\x05\x00\x00\x01\x01\x02\x03", Ok(Heard::Nothing)),
            (b"\x05\x00\x00\x02", Err(Refusal::Strange)),
            (b"\x04", Err(Refusal::Strange)),
            (b"H", Err(Refusal::Strange)),
            (b"\x05\x05", Err(Refusal::Reply(5))),
            (b"\x05\xff", Err(Refusal::Reply(255))),
        ];
        for (answer, wanted) in cases {
            let (mut socks, _) = Socks::new(None, Target::Address("127.0.0.1:80".parse().unwrap()));
            let request = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50".to_vec();
            assert_eq!(hear(&mut socks, &[5, 0]), Ok(Heard::Say(request)));
            assert_eq!(hear(&mut socks, answer), wanted, "{answer:?}");
        }
        let (mut socks, _) = Socks::new(None, Target::Name("a".to_owned(), 1));
        assert_eq!(hear(&mut socks, &[5, 255]), Err(Refusal::WantsUser));
        let (mut socks, _) = Socks::new(None, Target::Name("a".to_owned(), 1));
        assert_eq!(hear(&mut socks, &[5, 2]), Err(Refusal::Strange));
        let (mut socks, _) = Socks::new(None, Target::Name("a".repeat(256), 1));
        assert_eq!(hear(&mut socks, &[5, 0]), Err(Refusal::TooLong));
    }
}
