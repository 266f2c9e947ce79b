//! The daemon's packet thread without the daemon: one pair whose keys everybody knows, installed
//! by hand, so that what is measured is the path of a packet and nothing else.
//!
//! The thread is the daemon's own source, taken in by path. Only here can it be told to use the
//! cipher that does nothing, for the `forwarding` that this program sees is `unsealed`, the same
//! source with one cipher more.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use forwarding::Provider;
use sa::{
    About, Class, Command, Envelope, EspCipher, EspKey, Flow, Limits, Mode, Policy, SaId, SaPair,
    Spi, TrafficSelector, Trust,
};

use crate::site::ENDS;

#[path = "../../../../node/daemon/src/userspace/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "what IKE needs of it is not used here"
)]
mod userspace;

/// How the thread is set up.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Which end of the cable.
    #[arg(long)]
    side: usize,
    #[arg(long, default_value = "aes-128-gcm")]
    cipher: Cipher,
    /// IP protocol 50 instead of UDP.
    #[arg(long)]
    bare: bool,
    /// Further pairs, and ten times as many destinations known as clear.
    #[arg(long, default_value_t = 0)]
    pairs: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Cipher {
    Null,
    #[value(name = "aes-128-gcm")]
    Aes128,
    #[value(name = "aes-128-gcm-portable")]
    Portable,
    #[value(name = "aes-256-gcm")]
    Aes256,
    #[value(name = "chacha20-poly1305")]
    ChaCha,
}

impl Cipher {
    fn parts(self) -> (Provider, EspCipher) {
        match self {
            Self::Null => (Provider::Null, EspCipher::Aes128Gcm16),
            Self::Aes128 => (Provider::AwsLc, EspCipher::Aes128Gcm16),
            Self::Portable => (Provider::RustCrypto, EspCipher::Aes128Gcm16),
            Self::Aes256 => (Provider::AwsLc, EspCipher::Aes256Gcm16),
            Self::ChaCha => (Provider::AwsLc, EspCipher::ChaCha20Poly1305),
        }
    }
}

/// Runs until standard input is closed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (provider, cipher) = arguments.cipher.parts();
    let plane = userspace::start(userspace::Config {
        mark: MARK,
        forwarding: forwarding::Config { provider, ..forwarding::Config::default() },
        ..userspace::Config::default()
    })?;
    let own: IpAddr = ENDS.get(arguments.side).context("two sides")?.parse()?;
    let far: IpAddr = ENDS.get(1 - arguments.side).context("two sides")?.parse()?;
    plane.command(Command::SetClass {
        prefix: "0.0.0.0/0".parse()?,
        class: Class::Trap { fail_closed: false },
    });
    let encrypt = |id: u64, far: IpAddr, flip: bool| -> anyhow::Result<()> {
        let udp = !arguments.bare;
        plane.command(Command::AddSa(Box::new(pair(id, cipher, own, far, udp, flip)?)));
        let flow = Flow::new(own, far).context("two families")?;
        let policy = Policy::Encrypt(SaId(id));
        plane.command(Command::SetPolicy { flow, policy, about: About::Destination });
        Ok(())
    };
    encrypt(1, far, arguments.side == 1)?;
    for number in 0..arguments.pairs {
        let far = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        encrypt(u64::from(number) + 2, far, false)?;
    }
    if arguments.pairs > 0 {
        for to in clear_destinations() {
            let flow = Flow::new(own, to.into()).context("two families")?;
            plane.command(Command::SetPolicy {
                flow,
                policy: Policy::Pass,
                about: About::Destination,
            });
        }
    }
    plane.wake();
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    // Nobody asks; whatever comes ends the wait.
    std::io::stdin().read_line(&mut String::new())?;
    if std::env::var_os("OE_NODE_BENCH_COUNTERS").is_some() {
        eprintln!("{:#?}", plane.counters());
    }
    plane.stop();
    Ok(())
}

/// The addresses that the loaded thread knows as clear.
pub(crate) fn clear_destinations() -> impl Iterator<Item = Ipv4Addr> {
    (0..100_000).map(|number| Ipv4Addr::from(0x6440_0000 + number))
}

/// The same pair at both ends; `flip` at one of them.
fn pair(
    id: u64,
    cipher: EspCipher,
    own: IpAddr,
    far: IpAddr,
    udp: bool,
    flip: bool,
) -> anyhow::Result<SaPair> {
    let number = u32::try_from(id)? << 1;
    let spi = |second: bool| Spi::new(0x1000 + number + u32::from(second)).context("an SPI");
    let key = |second: bool| {
        let octets = vec![u8::from(second) + 1; cipher.keymat_len()];
        EspKey::new(cipher, &octets).context("a key")
    };
    let port = if udp { 4500 } else { 0 };
    Ok(SaPair {
        id: SaId(id),
        cipher,
        spi_in: spi(flip)?,
        spi_out: spi(!flip)?,
        key_in: key(flip)?,
        key_out: key(!flip)?,
        esn: true,
        mode: Mode::Tunnel,
        local: vec![TrafficSelector::host(own)],
        remote: vec![TrafficSelector::host(far)],
        envelope: Envelope {
            local: SocketAddr::new(own, port),
            remote: SocketAddr::new(far, port),
            udp,
        },
        limits: Limits::of_esp(true),
        trust: Trust::Configured,
        translation: None,
    })
}

/// The sockets' mark, which routing exempts.
pub(crate) const MARK: u32 = 0x0e5;
