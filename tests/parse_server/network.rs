//! A real Parse Server as it stands on the internet: behind TLS, a reverse proxy, and a forward proxy on this side.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command};

use parse_livequery::{ClientBuilder, EventKind, Query};
use serde_json::json;

use crate::recorder::{Recorder, builder_for};
use crate::support::{ParseServer, Port, is_installed, numbered_path, wait_until};

#[path = "../it/support/certificates.rs"]
#[expect(unreachable_pub, dead_code, reason = "these tests need a part of it")]
mod certificates;
#[path = "../it/support/socket.rs"]
#[expect(unreachable_pub, reason = "these tests are one crate")]
mod socket;
#[path = "../it/support/tunnel.rs"]
#[expect(unreachable_pub, dead_code, reason = "these tests need a part of it")]
mod tunnel;

use certificates::{Authority, Identity};
use tunnel::ConnectProxy;

/// Debian's nginx with TLS, before one server. Ends with this value.
struct Nginx {
    folder: PathBuf,
    port: Port,
    process: Option<Child>,
}

impl Nginx {
    fn start(identity: &Identity, server: u16) -> Self {
        let folder = numbered_path("nginx");
        fs::create_dir_all(&folder).unwrap();
        let port = Port::reserve();
        let address = port.addr();
        fs::write(folder.join("chain.pem"), &identity.chain).unwrap();
        fs::write(folder.join("key.pem"), &identity.key).unwrap();
        let configuration = format!(
            "daemon off;
             master_process off;
             pid pid;
             error_log error.log warn;
             events {{}}
             http {{
               access_log off;
               client_body_temp_path temporary;
               proxy_temp_path temporary;
               fastcgi_temp_path temporary;
               uwsgi_temp_path temporary;
               scgi_temp_path temporary;
               server {{
                 listen {address} ssl;
                 ssl_certificate {0}/chain.pem;
                 ssl_certificate_key {0}/key.pem;
                 location / {{
                   proxy_pass http://127.0.0.1:{server};
                   proxy_http_version 1.1;
                   proxy_set_header Host $host;
                   proxy_set_header Upgrade $http_upgrade;
                   proxy_set_header Connection \"upgrade\";
                 }}
               }}
             }}",
            folder.display()
        );
        fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let mut this = Self {
            folder,
            port,
            process: None,
        };
        this.start_again();
        this
    }

    fn start_again(&mut self) {
        let process = Command::new("nginx")
            .arg("-p")
            .arg(&self.folder)
            .arg("-c")
            .arg(self.folder.join("nginx.conf"))
            .arg("-e")
            .arg(self.folder.join("error.log"))
            .stderr(File::create(self.folder.join("stderr.log")).unwrap())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let address = self.port.addr();
        wait_until("nginx serves", || TcpStream::connect(address).is_ok());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/parse", self.port.addr().port())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
        // What is left is below the build's folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// All that a subscription can get, and that it comes back after nginx was restarted.
fn all_events_and_a_restart(server: &ParseServer, class: &str, nginx: &mut Nginx, builder: ClientBuilder) {
    let client = builder.build().unwrap();
    let recorder = Recorder::open(client.subscription(&Query::new(class).greater_than("score", 10)));
    let id = server.create(class, &json!({"score": 11}));
    recorder.expect_of(EventKind::Create, &id);
    server.update(class, &id, &json!({"score": 12}));
    let updated = recorder.expect_of(EventKind::Update, &id);
    assert_eq!(updated.original().unwrap().get("score"), Some(&json!(11)));
    server.update(class, &id, &json!({"score": 1}));
    recorder.expect_of(EventKind::Leave, &id);
    server.update(class, &id, &json!({"score": 13}));
    recorder.expect_of(EventKind::Enter, &id);

    nginx.kill();
    recorder.expect(EventKind::Close);
    nginx.start_again();
    assert!(recorder.expect(EventKind::Open).gap().is_some());
    server.delete(class, &id);
    recorder.expect_of(EventKind::Delete, &id);
    recorder.end();
    client.close();
}

#[test]
#[ignore = "needs Node.js 20, npm and nginx"]
fn everything_comes_through_nginx_with_tls_and_after_its_restart() {
    if !is_installed("nginx") {
        return;
    }
    let server = ParseServer::shared();
    let authority = Authority::new();
    let mut nginx = Nginx::start(&authority.issue("localhost"), server.port());
    let builder = builder_for(nginx.url()).add_root_certificate(&authority.pem);
    all_events_and_a_restart(server, "BehindNginx", &mut nginx, builder);
}

#[test]
#[ignore = "needs Node.js 20, npm and nginx"]
fn everything_comes_through_a_connect_proxy_before_that() {
    if !is_installed("nginx") {
        return;
    }
    let server = ParseServer::shared();
    let authority = Authority::new();
    let mut nginx = Nginx::start(&authority.issue("localhost"), server.port());
    let proxy = ConnectProxy::with_authorization(nginx.port.addr(), "Basic dXNlcjpwYXNzd29yZA==");
    let builder = builder_for(nginx.url())
        .add_root_certificate(&authority.pem)
        .proxy(format!("http://user:password@{}", proxy.addr()));
    all_events_and_a_restart(server, "BehindProxy", &mut nginx, builder);
    assert!(
        proxy.requests().len() >= 2,
        "each connection went through the proxy"
    );
}
