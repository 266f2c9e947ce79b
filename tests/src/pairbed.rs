//! Two hosts with many addresses each, and a name server for their keys, in namespaces: where
//! nodes are measured.
//!
//! ```text
//! west  10.1.0.0/16 on lo ── 192.0.2.1 ═══ 192.0.2.2 ── 10.2.0.0/16 on lo  east
//!       zone serve on 192.0.2.1, for both; 192.0.2.0/24 is in the clear
//! ```

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dnskeys::{Name, RsaKey, ServerTxt, TxtGateway};

use crate::node::Setup;
use crate::place;

/// The namespaces, the keys, the zone and its server. All is gone when it is dropped.
#[derive(Debug)]
pub struct PairBed {
    /// Where files lie.
    pub directory: PathBuf,
    prefix: String,
    server: Option<Child>,
}

impl PairBed {
    /// What it needs to run.
    pub const NEEDS: [&'static str; 4] = ["ip", "openssl", "sysctl", "/dev/net/tun"];

    /// Makes everything; `hosts` addresses on each side publish its key of so many bits.
    ///
    /// # Panics
    /// If something is refused.
    #[must_use]
    pub fn up(name: &str, bits: &str, hosts: usize) -> Self {
        let prefix = format!("{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&prefix);
        let made = fs::create_dir_all(&directory);
        assert!(made.is_ok(), "{}: {made:?}", directory.display());
        let mut bed = Self { directory, prefix, server: None };
        shell(&bed.plan(hosts));
        let west = bed.key("west", bits);
        let east = bed.key("east", bits);
        let mut zone = ". 3600 IN SOA ns.test. root.test. 1 3600 600 86400 5\n\
             . 3600 IN NS ns.test.\nns.test. 3600 IN A 192.0.2.1\n"
            .to_owned();
        for n in 0..hosts {
            for (address, key) in [(Self::west(n), &west), (Self::east(n), &east)] {
                let gateway = TxtGateway::Address(address);
                let record = ServerTxt { precedence: 10, gateway, key: Some(key.clone()) };
                // Writing to memory cannot fail.
                let _ = writeln!(
                    zone,
                    "{} 3600 IN TXT {}",
                    Name::reverse(address).as_str(),
                    record.presentation()
                );
            }
        }
        bed.serve(&zone);
        bed
    }

    /// West's n-th address.
    #[must_use]
    pub fn west(n: usize) -> IpAddr {
        address(1, n)
    }

    /// East's n-th address.
    #[must_use]
    pub fn east(n: usize) -> IpAddr {
        address(2, n)
    }

    /// A side's namespace.
    #[must_use]
    pub fn namespace(&self, side: &str) -> String {
        format!("{}-{side}", self.prefix)
    }

    /// Where a side's private key is, PKCS#8 PEM.
    #[must_use]
    pub fn key_file(&self, side: &str) -> PathBuf {
        self.directory.join(format!("{side}.key"))
    }

    /// Where its public half is, PEM.
    #[must_use]
    pub fn public_key_file(&self, side: &str) -> PathBuf {
        self.directory.join(format!("{side}.pub"))
    }

    /// What a side's node is told.
    #[must_use]
    pub fn setup(&self, side: &str) -> Setup {
        let directory = self.directory.join(side);
        let _ = fs::create_dir_all(&directory);
        let mut setup = Setup::new(directory, "192.0.2.1", self.directory.join("anchor"));
        setup.key = Some(self.key_file(side));
        setup.policies = vec![("private-or-clear", "10.0.0.0/8\n"), ("clear", "192.0.2.0/24\n")];
        setup
    }

    fn plan(&self, hosts: usize) -> String {
        let (west, east) = (self.namespace("west"), self.namespace("east"));
        let mut plan = format!(
            "set -e\nip netns add {west}\nip netns add {east}\n\
             ip -n {west} link add eth0 type veth peer name eth0 netns {east}\n\
             ip -n {west} addr add 192.0.2.1/24 dev eth0\n\
             ip -n {east} addr add 192.0.2.2/24 dev eth0\n"
        );
        for side in [&west, &east] {
            let _ = write!(plan, "ip -n {side} link set lo up\nip -n {side} link set eth0 up\n");
        }
        let batch = |of: fn(usize) -> IpAddr| -> String {
            (0..hosts).map(|n| format!("addr add {}/32 dev lo\n", of(n))).collect()
        };
        let _ = write!(
            plan,
            "ip -n {west} -batch - <<END\n{}END\nip -n {east} -batch - <<END\n{}END\n\
             ip -n {west} route add 10.2.0.0/16 via 192.0.2.2\n\
             ip -n {east} route add 10.1.0.0/16 via 192.0.2.1\n",
            batch(Self::west),
            batch(Self::east)
        );
        plan
    }

    /// Makes a key; gives its public half.
    fn key(&self, side: &str, bits: &str) -> RsaKey {
        let file = self.key_file(side).display().to_string();
        shell(&format!(
            "umask 077; openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{bits} -out {file}"
        ));
        let public = Command::new("openssl").args(["pkey", "-in", &file, "-pubout"]).output();
        let Ok(public) = public else { panic!("openssl: {public:?}") };
        let key = RsaKey::from_pem(&String::from_utf8_lossy(&public.stdout));
        let Ok(key) = key else { panic!("{file}: {key:?}") };
        let written = fs::write(self.public_key_file(side), &public.stdout);
        assert!(written.is_ok(), "{file}: {written:?}");
        key
    }

    fn serve(&mut self, zone: &str) {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let written = fs::write(file("root.zone"), zone);
        assert!(written.is_ok(), "{written:?}");
        let binary = crate::oe_node().display().to_string();
        let (keys, anchor, zone) = (file("zone-keys"), file("anchor"), file("root.zone"));
        let words = [
            &[&binary, "zone", "serve", "--listen", "192.0.2.1:53", "--key-dir", &keys][..],
            &["--write-trust-anchor", &anchor, &zone],
        ];
        let log = fs::File::create(file("dns.log"));
        let Ok(log) = log else { panic!("{log:?}") };
        let Ok(copy) = log.try_clone() else { panic!("log") };
        let mut command = place::command(&self.namespace("west"), &words.concat());
        let spawned = command.stdout(copy).stderr(log).spawn();
        let Ok(server) = spawned else { panic!("{spawned:?}") };
        self.server = Some(server);
        place::await_some("the name server answers", Duration::from_secs(60), || {
            let said = fs::read_to_string(file("dns.log")).unwrap_or_default();
            said.contains("answering on").then_some(())
        });
    }
}

impl Drop for PairBed {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        for side in ["west", "east"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(side)]).output();
        }
        let _ = fs::remove_dir_all::<&Path>(&self.directory);
    }
}

/// Addresses spread over many /24s, as strangers are.
fn address(net: u8, n: usize) -> IpAddr {
    let octet = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, net, octet(n % 8), octet(1 + n / 8)).into()
}

fn shell(script: &str) {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output();
    let Ok(output) = output else { panic!("sh: {output:?}") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
