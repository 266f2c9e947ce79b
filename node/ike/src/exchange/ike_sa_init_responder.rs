//! IKE_SA_INIT, the peer's request (RFC 7296 §1.2, §2.6).

use std::net::SocketAddr;

use crate::crypto::{Agreement, IkeKeys, IkeSuite, Mix, Suites, choose_ike};
use crate::exchange::ike_auth_responder::HalfOpenSa;
use crate::exchange::ike_sa_init_initiator::{announced_hashes, announcements};
use crate::failure::Failure;
use crate::ike_sa::{IkeSa, IkeSaParts};
use crate::message::{
    ExchangeType, Header, InvalidMessage, KeyExchange, Message, Notify, NotifyType, Payload,
    Payloads, Proposal,
};
use crate::path::detect;
use crate::peering::{HALF_OPEN_LIFE, State, Turn, bare};

/// What we say of ourselves, as far as the request announces it too: a forged one must not draw more
/// octets than it has.
pub(crate) fn echoed(
    turn: &Turn<'_>,
    payloads: &Payloads,
    (spi_i, spi_r): (u64, u64),
) -> Vec<Payload> {
    let (local, remote) = turn.reply;
    let mut ours = announcements(turn, spi_i, spi_r, local, remote);
    ours.retain(|announcement| match announcement {
        Payload::Notify(ours) => payloads.notify(ours.kind).is_some(),
        _ => true,
    });
    ours
}

/// What NAT detection finds in a first request, whose sender knew its own SPI only.
pub(crate) fn note_asker(turn: &mut Turn<'_>, payloads: &Payloads, spi_i: u64) {
    let (local, remote) = turn.reply;
    if let Some(detected) = detect(payloads, (spi_i, 0), local, remote) {
        turn.note(detected);
    }
}

/// A request that can be answered with an SA.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    message: &'a Message<'a>,
    payloads: &'a Payloads,
    suite: IkeSuite,
    answer: Proposal,
    ke: &'a KeyExchange,
    nonce: &'a [u8],
}

/// Reads a request as far as it costs nothing. The failure is what to answer, statelessly.
pub(crate) fn read<'a>(
    suites: Suites,
    message: &'a Message<'a>,
    payloads: &'a Payloads,
) -> Result<Request<'a>, Failure> {
    let intermediate = payloads.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some();
    let suites = Suites { additional: suites.additional && intermediate, ..suites };
    let proposals = payloads.sa.as_ref().ok_or(InvalidMessage::Missing("SA"))?;
    let ke = payloads.ke.as_ref().ok_or(InvalidMessage::Missing("KE"))?;
    let nonce = payloads.nonce.as_ref().ok_or(InvalidMessage::Missing("Nonce"))?;
    // A nonce too short for each prf that is offered leaves none of them to choose: INVALID_SYNTAX is
    // for what is protected (RFC 7296 §2.10, §3.10.1).
    let (suite, answer) =
        choose_ike(suites, proposals, 0, ke.group, nonce.len()).ok_or(Failure::NoProposalChosen)?;
    if suite.group.number() != ke.group {
        return Err(Failure::InvalidKe(suite.group.number()));
    }
    if ke.data.len() != suite.group.public_len() {
        return Err(Failure::InvalidSyntax("KE"));
    }
    Ok(Request { message, payloads, suite, answer, ke, nonce })
}

/// Answers with an SA; it waits for IKE_AUTH.
pub(crate) fn accept(request: &Request<'_>, turn: &mut Turn<'_>) -> Result<State, Failure> {
    let Request { message, payloads, suite, answer, ke, nonce } = request;
    let invalid = |_| Failure::InvalidSyntax("KE");
    let agreement = Agreement::new(suite.group, &mut turn.shared.rng).map_err(invalid)?;
    let secret = agreement.agree(&ke.data).map_err(invalid)?;
    let own_nonce = turn.shared.nonce();
    let spi_r = turn.fresh_ike_spi();
    let spi_i = message.header.spi_i;
    let mix = Mix { nonce_i: nonce, nonce_r: &own_nonce, spi_i, spi_r };
    let (keys, ciphers) =
        IkeKeys::initial(suite.prf, suite.cipher, &secret, mix).map_err(invalid)?;
    let mut answers = vec![
        Payload::Sa(vec![answer.clone()]),
        Payload::KeyExchange(KeyExchange { group: ke.group, data: agreement.public().to_vec() }),
        Payload::Nonce(own_nonce.clone()),
    ];
    answers.extend(echoed(turn, payloads, (spi_i, spi_r)));
    answers.push(bare(NotifyType::CHILDLESS_IKEV2_SUPPORTED));
    let header = Header {
        spi_i,
        spi_r,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: false,
        response: true,
        message_id: 0,
    };
    let response = header.write_clear(&answers);
    let sa = IkeSa::initial(IkeSaParts {
        spi_i,
        spi_r,
        initiator: false,
        suite: *suite,
        keys,
        ciphers,
        whole: turn.shared.longest_whole(payloads),
    })
    .map_err(invalid)?;
    note_asker(turn, payloads, spi_i);
    turn.answer(vec![response.clone()]);
    Ok(State::HalfOpen(Box::new(HalfOpenSa {
        sa,
        request: message.octets.to_vec(),
        response,
        nonce_i: nonce.to_vec(),
        nonce_r: own_nonce,
        hashes: announced_hashes(payloads),
        owed_ke: suite.additional,
        resumed: None,
        wants_ticket: false,
        until: turn.now + HALF_OPEN_LIFE,
    })))
}

/// An answer that leaves no state behind (RFC 7296 §2.6, §1.2).
pub(crate) fn stateless(header: &Header, notify: Notify) -> Vec<u8> {
    let answer = Header { spi_r: 0, initiator: false, response: true, ..*header };
    answer.write_clear(&[Payload::Notify(notify)])
}

/// What identifies a request, so that its repetition is answered as it was.
pub(crate) type Digest = [u8; 32];

/// That of a datagram.
pub(crate) fn digest(remote: SocketAddr, octets: &[u8]) -> Digest {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let (address, port) = (remote.ip(), remote.port().to_be_bytes());
    match address {
        std::net::IpAddr::V4(address) => digest.update(&address.octets()),
        std::net::IpAddr::V6(address) => digest.update(&address.octets()),
    }
    digest.update(&port);
    digest.update(octets);
    digest.finish().as_ref().try_into().unwrap_or_default()
}
