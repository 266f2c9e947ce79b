//! Which algorithms: what we offer, what we choose, what we let the peer choose
//! (RFC 7296 §2.7, §3.3.6).

use sa::EspCipher;

use super::agreement::Group;
use super::schedule::Prf;
use super::seal::IkeCipher;
use crate::message::{Proposal, ProtocolId, Transform, TransformType};

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IkeSuite {
    pub(crate) cipher: IkeCipher,
    pub(crate) prf: Prf,
    pub(crate) group: Group,
}

/// Everything we can do, as one proposal. `spi` is empty in IKE_SA_INIT.
pub(crate) fn offer_ike(spi: &[u8]) -> Vec<Proposal> {
    let ciphers = IkeCipher::ALL.into_iter().map(|c| {
        let (id, key_length) = c.number();
        Transform::new(TransformType::ENCR, id, key_length)
    });
    let prfs = Prf::ALL.into_iter().map(|p| Transform::new(TransformType::PRF, p.number(), None));
    let transforms = ciphers.chain(prfs).chain(group_transforms()).collect();
    vec![Proposal { number: 1, protocol: ProtocolId::IKE, spi: spi.to_vec(), transforms }]
}

fn group_transforms() -> impl Iterator<Item = Transform> {
    Group::ALL.into_iter().map(|g| Transform::new(TransformType::KE, g.number(), None))
}

/// The responder's choice for an IKE SA, with the proposal that says it. `ke_group` is the
/// group of the peer's KE payload, preferred because it saves a round.
pub(crate) fn choose_ike(
    proposals: &[Proposal],
    spi_len: usize,
    ke_group: u16,
    own_spi: &[u8],
) -> Option<(IkeSuite, Proposal)> {
    proposals.iter().filter(|p| p.protocol == ProtocolId::IKE && p.spi.len() == spi_len).find_map(
        |proposal| {
            let suite = suite_of(proposal, ke_group)?;
            Some((suite, answer_ike(proposal.number, suite, own_spi)))
        },
    )
}

fn answer_ike(number: u8, suite: IkeSuite, own_spi: &[u8]) -> Proposal {
    let (id, key_length) = suite.cipher.number();
    Proposal {
        number,
        protocol: ProtocolId::IKE,
        spi: own_spi.to_vec(),
        transforms: vec![
            Transform::new(TransformType::ENCR, id, key_length),
            Transform::new(TransformType::PRF, suite.prf.number(), None),
            Transform::new(TransformType::KE, suite.group.number(), None),
        ],
    }
}

/// The best suite of one proposal.
fn suite_of(proposal: &Proposal, ke_group: u16) -> Option<IkeSuite> {
    const KNOWN: [TransformType; 4] =
        [TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::KE];
    if !only_types(proposal, &KNOWN) || !integrity_is_none(proposal) {
        return None;
    }
    let has = |kind, id, bits| has(proposal, kind, id, bits);
    let cipher = IkeCipher::ALL.into_iter().find(|c| {
        let (id, key_length) = c.number();
        has(TransformType::ENCR, id, key_length)
    })?;
    let prf = Prf::ALL.into_iter().find(|p| has(TransformType::PRF, p.number(), None))?;
    let group = Group::from_number(ke_group)
        .into_iter()
        .chain(Group::ALL)
        .find(|g| has(TransformType::KE, g.number(), None))?;
    Some(IkeSuite { cipher, prf, group })
}

/// What the responder chose from [`offer_ike`]; `None` if it was not offered.
pub(crate) fn confirm_ike(proposals: &[Proposal], spi_len: usize) -> Option<IkeSuite> {
    let proposal = single(proposals, ProtocolId::IKE, spi_len)?;
    let suite = suite_of(proposal, 0)?;
    let said = proposal.transforms.iter().filter(|t| t.kind != TransformType::INTEG).count();
    (proposal.number == 1 && said == 3).then_some(suite)
}

/// What to ask for a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EspOffer {
    /// Within IKE_AUTH: no key exchange of its own.
    WithoutKe,
    /// In CREATE_CHILD_SA: with a key exchange first, without if the peer will have none.
    WithKe,
}

/// The algorithms of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EspChoice {
    pub(crate) cipher: EspCipher,
    pub(crate) esn: bool,
    pub(crate) group: Option<Group>,
}

const ESP_CIPHERS: [EspCipher; 3] =
    [EspCipher::Aes256Gcm16, EspCipher::Aes128Gcm16, EspCipher::ChaCha20Poly1305];

fn esp_number(cipher: EspCipher) -> (u16, Option<u16>) {
    match cipher {
        EspCipher::Aes256Gcm16 => (20, Some(256)),
        EspCipher::Aes128Gcm16 => (20, Some(128)),
        EspCipher::ChaCha20Poly1305 => (28, None),
    }
}

/// Everything we can do for a child. Both values of ESN are offered: libreswan takes the first,
/// strongSwan over libipsec knows only the second.
pub(crate) fn offer_esp(spi: [u8; 4], offer: EspOffer) -> Vec<Proposal> {
    let plain: Vec<_> = ESP_CIPHERS
        .into_iter()
        .map(|c| {
            let (id, key_length) = esp_number(c);
            Transform::new(TransformType::ENCR, id, key_length)
        })
        .chain([1, 0].into_iter().map(|id| Transform::new(TransformType::ESN, id, None)))
        .collect();
    let mut proposals = Vec::new();
    if offer == EspOffer::WithKe {
        proposals.push(plain.iter().copied().chain(group_transforms()).collect::<Vec<_>>());
    }
    proposals.push(plain);
    proposals
        .into_iter()
        .zip(1..)
        .map(|(transforms, number)| Proposal {
            number,
            protocol: ProtocolId::ESP,
            spi: spi.to_vec(),
            transforms,
        })
        .collect()
}

/// The responder's choice for a child: the algorithms, the peer's SPI and the number of the
/// proposal. `ke_group` is the group of the peer's KE payload, if there is one. The choice may name another
/// group than that: then the answer is INVALID_KE_PAYLOAD.
pub(crate) fn choose_esp(
    proposals: &[Proposal],
    ke_group: Option<u16>,
) -> Option<(EspChoice, u32, u8)> {
    proposals.iter().find_map(|proposal| {
        let spi: [u8; 4] = proposal.spi.as_slice().try_into().ok()?;
        if proposal.protocol != ProtocolId::ESP {
            return None;
        }
        let choice = esp_choice(proposal, ke_group)?;
        Some((choice, u32::from_be_bytes(spi), proposal.number))
    })
}

fn esp_choice(proposal: &Proposal, ke_group: Option<u16>) -> Option<EspChoice> {
    const KNOWN: [TransformType; 4] =
        [TransformType::ENCR, TransformType::INTEG, TransformType::KE, TransformType::ESN];
    if !only_types(proposal, &KNOWN) || !integrity_is_none(proposal) {
        return None;
    }
    let has = |kind, id, bits| has(proposal, kind, id, bits);
    let cipher = ESP_CIPHERS.into_iter().find(|c| {
        let (id, key_length) = esp_number(*c);
        has(TransformType::ENCR, id, key_length)
    })?;
    // RFC 7296 §3.3.3 makes ESN mandatory in a proposal; some leave it out and mean "no".
    let silent = !proposal.transforms.iter().any(|t| t.kind == TransformType::ESN);
    let esn = has(TransformType::ESN, 1, None);
    if !esn && !silent && !has(TransformType::ESN, 0, None) {
        return None;
    }
    let wants_ke = proposal.transforms.iter().any(|t| t.kind == TransformType::KE);
    let group = match ke_group {
        Some(sent) => Group::from_number(sent)
            .into_iter()
            .chain(Group::ALL)
            .find(|g| has(TransformType::KE, g.number(), None)),
        None => None,
    };
    if wants_ke && group.is_none() && !has(TransformType::KE, 0, None) {
        return None;
    }
    Some(EspChoice { cipher, esn, group })
}

/// The proposal that states a choice.
pub(crate) fn answer_esp(number: u8, choice: EspChoice, spi: [u8; 4]) -> Proposal {
    let (id, key_length) = esp_number(choice.cipher);
    let mut transforms = vec![Transform::new(TransformType::ENCR, id, key_length)];
    transforms.extend(choice.group.map(|g| Transform::new(TransformType::KE, g.number(), None)));
    transforms.push(Transform::new(TransformType::ESN, choice.esn.into(), None));
    Proposal { number, protocol: ProtocolId::ESP, spi: spi.to_vec(), transforms }
}

/// What the responder chose from [`offer_esp`], and its SPI. `ke_group` is the group of the KE
/// payload that came with the choice.
pub(crate) fn confirm_esp(
    proposals: &[Proposal],
    offer: EspOffer,
    ke_group: Option<u16>,
) -> Option<(EspChoice, u32)> {
    let proposal = single(proposals, ProtocolId::ESP, 4)?;
    let mut kinds: Vec<_> = proposal.transforms.iter().map(|t| t.kind.0).collect();
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair.first() == pair.last()) {
        return None;
    }
    let wants_ke = proposal.transforms.iter().any(|t| t.kind == TransformType::KE && t.id != 0);
    let offered = match offer {
        EspOffer::WithoutKe => proposal.number == 1 && !wants_ke,
        EspOffer::WithKe => proposal.number == if wants_ke { 1 } else { 2 },
    };
    let (choice, spi, _) = choose_esp(proposals, ke_group.filter(|_| wants_ke))?;
    let group_fits = choice.group.map(Group::number) == ke_group.filter(|_| wants_ke);
    (offered && wants_ke == choice.group.is_some() && group_fits).then_some((choice, spi))
}

/// The one proposal of an answer.
fn single(proposals: &[Proposal], protocol: ProtocolId, spi_len: usize) -> Option<&Proposal> {
    match proposals {
        [p] if p.protocol == protocol && p.spi.len() == spi_len => Some(p),
        _ => None,
    }
}

/// A proposal with a transform type that we do not know cannot be chosen (RFC 7296 §3.3.6).
fn only_types(proposal: &Proposal, known: &[TransformType]) -> bool {
    proposal.transforms.iter().all(|t| known.contains(&t.kind))
}

/// All our ciphers are AEADs: INTEG is absent, or may be NONE (RFC 7296 §3.3.3).
fn integrity_is_none(proposal: &Proposal) -> bool {
    let mut integ =
        proposal.transforms.iter().filter(|t| t.kind == TransformType::INTEG).peekable();
    integ.peek().is_none() || integ.any(|t| t.id == 0)
}

fn has(proposal: &Proposal, kind: TransformType, id: u16, key_length: Option<u16>) -> bool {
    proposal.transforms.contains(&Transform::new(kind, id, key_length))
}
