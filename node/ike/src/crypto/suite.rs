//! Which algorithms: what we offer, what we choose, what we let the peer choose
//! (RFC 7296 §2.7, §3.3.6).

use sa::{EspCipher, Integrity};

use super::agreement::Group;
use super::kem::AdditionalKe;
use super::modp::Modp;
use super::schedule::Prf;
use super::seal::IkeCipher;
use crate::message::{Proposal, ProtocolId, Transform, TransformType};

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IkeSuite {
    pub(crate) cipher: IkeCipher,
    pub(crate) prf: Prf,
    pub(crate) group: Group,
    /// What else goes into the keys (RFC 9370).
    pub(crate) additional: Option<AdditionalKe>,
}

/// What will do for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Suites {
    /// AES-CBC with an HMAC, where the peer knows no AEAD, and MODP groups, where it knows no curve.
    pub(crate) compatibility: bool,
    /// An additional key exchange, for IKE, where the peer knows one (RFC 9370).
    pub(crate) additional: bool,
}

impl Suites {
    /// The key exchange methods, best first.
    fn groups(self) -> impl Iterator<Item = Group> {
        Group::ALL.into_iter().filter(move |group| self.compatibility || !group.is_compatibility())
    }

    /// The key exchange method of this number, if it will do.
    pub(crate) fn group(self, number: u16) -> Option<Group> {
        self.groups().find(|group| group.number() == number)
    }

    fn group_transforms(self) -> impl Iterator<Item = Transform> {
        self.groups().map(|g| transform(TransformType::KE, g.number()))
    }
}

impl IkeSuite {
    /// How many numbers say what a suite is.
    pub(crate) const NUMBERS: usize = 5;

    /// The numbers of its transforms: prf, cipher, key length, key exchange, and another.
    pub(crate) fn numbers(self) -> [u16; Self::NUMBERS] {
        let (cipher, bits) = self.cipher.number();
        let additional = self.additional.map_or(NO_EXCHANGE, AdditionalKe::number);
        [self.prf.number(), cipher, bits.unwrap_or(0), self.group.number(), additional]
    }

    /// The suite of these numbers. Those that need an HMAC are not among them.
    pub(crate) fn from_numbers(numbers: [u16; Self::NUMBERS]) -> Option<Self> {
        let [prf, cipher, bits, group, additional] = numbers;
        let bits = (bits != 0).then_some(bits);
        Some(Self {
            cipher: IkeCipher::AEADS.into_iter().find(|c| c.number() == (cipher, bits))?,
            prf: Prf::ALL.into_iter().find(|p| p.number() == prf)?,
            group: Group::from_number(group)?,
            additional: match additional {
                NO_EXCHANGE => None,
                n if n == AdditionalKe::MlKem768.number() => Some(AdditionalKe::MlKem768),
                _ => return None,
            },
        })
    }

    /// Its key exchange, in a word.
    pub(crate) fn key_exchange(self) -> &'static str {
        let AdditionalKe::MlKem768 = self.additional.unwrap_or(AdditionalKe::MlKem768);
        match (self.group, self.additional.is_some()) {
            (Group::Curve25519, false) => "x25519",
            (Group::Ecp256, false) => "p256",
            (Group::Ecp384, false) => "p384",
            (Group::Ecp521, false) => "p521",
            (Group::Curve25519, true) => "x25519+mlkem768",
            (Group::Ecp256, true) => "p256+mlkem768",
            (Group::Ecp384, true) => "p384+mlkem768",
            (Group::Ecp521, true) => "p521+mlkem768",
            (Group::Modp(Modp::Modp2048), false) => "modp2048",
            (Group::Modp(Modp::Modp3072), false) => "modp3072",
            (Group::Modp(Modp::Modp4096), false) => "modp4096",
            (Group::Modp(Modp::Modp2048), true) => "modp2048+mlkem768",
            (Group::Modp(Modp::Modp3072), true) => "modp3072+mlkem768",
            (Group::Modp(Modp::Modp4096), true) => "modp4096+mlkem768",
        }
    }
}

/// Everything we can do: AEADs as one proposal, AES-CBC with HMACs as another, because the two do
/// not mix (RFC 5282 §8). `spi` is empty in IKE_SA_INIT. If there may be an additional key exchange,
/// AEADs with it come before them: a peer that does not know the transform type leaves out the
/// proposal that has it (RFC 7296 §3.3.6), and finds the next.
pub(crate) fn offer_ike(suites: Suites, spi: &[u8]) -> Vec<Proposal> {
    let prfs = || Prf::ALL.into_iter().map(|p| transform(TransformType::PRF, p.number()));
    let mut sets =
        cipher_sets(suites, |cipher: IkeCipher| cipher.number(), IkeCipher::AEADS, IkeCipher::cbc);
    if let (true, Some(aeads)) = (suites.additional, sets.first()) {
        let ke = transform(TransformType::ADDKE1, AdditionalKe::MlKem768.number());
        let hybrid = aeads.iter().copied().chain([ke]).collect();
        sets.insert(0, hybrid);
    }
    sets.into_iter()
        .zip(1..)
        .map(|(ciphers, number)| Proposal {
            number,
            protocol: ProtocolId::IKE,
            spi: spi.to_vec(),
            transforms: ciphers
                .into_iter()
                .chain(prfs())
                .chain(suites.group_transforms())
                .collect(),
        })
        .collect()
}

/// The ciphers of each proposal: AEADs, then AES-CBC with every HMAC if that will do.
fn cipher_sets<C, const N: usize>(
    suites: Suites,
    number: impl Fn(C) -> (u16, Option<u16>),
    aeads: [C; N],
    cbc: impl Fn(Integrity) -> [C; 2],
) -> Vec<Vec<Transform>> {
    let encr = |cipher: C| {
        let (id, key_length) = number(cipher);
        Transform::new(TransformType::ENCR, id, key_length)
    };
    let mut sets = vec![aeads.into_iter().map(&encr).collect::<Vec<_>>()];
    if suites.compatibility {
        let ciphers = cbc(Integrity::HmacSha2_512_256).into_iter().map(&encr);
        let integ = Integrity::ALL
            .into_iter()
            .map(|i| transform(TransformType::INTEG, integrity_number(i)));
        sets.push(ciphers.chain(integ).collect());
    }
    sets
}

fn transform(kind: TransformType, id: u16) -> Transform {
    Transform::new(kind, id, None)
}

fn integrity_number(integrity: Integrity) -> u16 {
    match integrity {
        Integrity::HmacSha2_256_128 => 12,
        Integrity::HmacSha2_384_192 => 13,
        Integrity::HmacSha2_512_256 => 14,
    }
}

/// The responder's choice for an IKE SA, with the proposal that says it. `ke_group` is the
/// group of the peer's KE payload, preferred because it saves a round.
pub(crate) fn choose_ike(
    suites: Suites,
    proposals: &[Proposal],
    spi_len: usize,
    ke_group: u16,
    nonce_len: usize,
) -> Option<(IkeSuite, Proposal)> {
    let usable = |p: &&Proposal| p.protocol == ProtocolId::IKE && p.spi.len() == spi_len;
    let look = |additional, cbc| {
        proposals.iter().filter(usable).find_map(|proposal| {
            let (suite, exchanges) =
                suite_of(suites, proposal, (ke_group, nonce_len), additional, cbc)?;
            (suite.additional.is_some() == additional)
                .then(|| (suite, answer_ike(proposal.number, suite, exchanges)))
        })
    };
    // Whatever the peer likes best, an additional key exchange is done wherever it is offered, and
    // AES-CBC is taken only if it offers nothing else.
    let mut hybrid = rounds(suites).filter(|_| suites.additional);
    hybrid
        .find_map(|cbc| look(true, cbc))
        .or_else(|| rounds(suites).find_map(|cbc| look(false, cbc)))
}

/// Whether AES-CBC is looked for: not in the first round, and in the second if it will do.
fn rounds(suites: Suites) -> impl Iterator<Item = bool> {
    [false, true].into_iter().take(if suites.compatibility { 2 } else { 1 })
}

fn answer_ike(number: u8, suite: IkeSuite, exchanges: Exchanges) -> Proposal {
    let (id, key_length) = suite.cipher.number();
    let mut transforms = vec![
        Transform::new(TransformType::ENCR, id, key_length),
        transform(TransformType::PRF, suite.prf.number()),
    ];
    let integrity = suite.cipher.integrity().map(integrity_number);
    transforms.extend(integrity.map(|id| transform(TransformType::INTEG, id)));
    transforms.push(transform(TransformType::KE, suite.group.number()));
    transforms.extend(exchanges.transforms());
    Proposal { number, protocol: ProtocolId::IKE, spi: Vec::new(), transforms }
}

/// The best suite of one proposal, with an AEAD or with AES-CBC, and what to answer to its
/// additional key exchanges, of which we do one if `additional`, and otherwise none.
fn suite_of(
    suites: Suites,
    proposal: &Proposal,
    (ke_group, nonce_len): (u16, usize),
    additional: bool,
    cbc: bool,
) -> Option<(IkeSuite, Exchanges)> {
    const KNOWN: [TransformType; 4] =
        [TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::KE];
    let mut known = KNOWN.to_vec();
    known.extend(TransformType::ADDKE);
    if !only_types(proposal, &known) {
        return None;
    }
    let exchanges = Exchanges::of(proposal, additional)?;
    let has = |kind, id| has(proposal, kind, id, None);
    let number = |cipher: &IkeCipher| cipher.number();
    let cipher = cipher_of(proposal, cbc, number, &IkeCipher::AEADS, IkeCipher::cbc)?;
    let prf = Prf::ALL
        .into_iter()
        .find(|p| has(TransformType::PRF, p.number()) && p.least_nonce() <= nonce_len)?;
    let group = suites
        .group(ke_group)
        .into_iter()
        .chain(suites.groups())
        .find(|g| has(TransformType::KE, g.number()))?;
    Some((IkeSuite { cipher, prf, group, additional: exchanges.method() }, exchanges))
}

/// The best cipher of one proposal: an AEAD if there is no integrity transform or NONE is among
/// them (RFC 7296 §3.3.3), or AES-CBC with the best HMAC there is.
fn cipher_of<C: Copy>(
    proposal: &Proposal,
    cbc: bool,
    number: impl Fn(&C) -> (u16, Option<u16>),
    aeads: &[C],
    with: impl Fn(Integrity) -> [C; 2],
) -> Option<C> {
    let offered = |cipher: &C| {
        let (id, key_length) = number(cipher);
        has(proposal, TransformType::ENCR, id, key_length)
    };
    if !cbc {
        return aeads.iter().copied().find(|c| integrity_is_none(proposal) && offered(c));
    }
    let integrity = Integrity::ALL
        .into_iter()
        .find(|i| has(proposal, TransformType::INTEG, integrity_number(*i), None))?;
    with(integrity).into_iter().find(offered)
}

/// What the responder chose from [`offer_ike`]; `None` if it was not offered.
pub(crate) fn confirm_ike(
    suites: Suites,
    proposals: &[Proposal],
    spi_len: usize,
) -> Option<IkeSuite> {
    let proposal = single(proposals, ProtocolId::IKE, spi_len)?;
    if has_twice(proposal) {
        return None;
    }
    let (additional, cbc) = match (suites.additional, proposal.number) {
        (true, 1) => (true, false),
        (true, 2) | (false, 1) => (false, false),
        (true, 3) | (false, 2) if suites.compatibility => (false, true),
        _ => return None,
    };
    let (suite, exchanges) = suite_of(suites, proposal, (0, usize::MAX), additional, cbc)?;
    // What was not asked for must not be answered, not even with "none".
    let fits =
        suite.additional.is_some() == additional && exchanges.len() == usize::from(additional);
    fits.then_some(suite)
}

/// An answer has one transform of each type.
fn has_twice(proposal: &Proposal) -> bool {
    let mut kinds: Vec<_> = proposal.transforms.iter().map(|t| t.kind.0).collect();
    kinds.sort_unstable();
    kinds.windows(2).any(|pair| pair.first() == pair.last())
}

/// What is answered to a proposal's additional key exchanges: of each type that it has one
/// (RFC 9370 §2.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Exchanges([Option<u16>; TransformType::ADDKE.len()]);

impl Exchanges {
    /// Ours at the first place where it is offered, if there may be one, and none at the others.
    /// `None` if that is not among the choices.
    fn of(proposal: &Proposal, additional: bool) -> Option<Self> {
        let (mut answers, mut open) = (Self::default(), additional);
        for (answer, kind) in answers.0.iter_mut().zip(TransformType::ADDKE) {
            if !proposal.transforms.iter().any(|t| t.kind == kind) {
                continue;
            }
            let method = AdditionalKe::MlKem768.number();
            *answer = if open && has(proposal, kind, method, None) {
                open = false;
                Some(method)
            } else if has(proposal, kind, NO_EXCHANGE, None) {
                Some(NO_EXCHANGE)
            } else {
                return None;
            };
        }
        Some(answers)
    }

    /// The one that is done.
    pub(crate) fn method(self) -> Option<AdditionalKe> {
        let ours = AdditionalKe::MlKem768;
        self.0.contains(&Some(ours.number())).then_some(ours)
    }

    fn len(self) -> usize {
        self.0.iter().flatten().count()
    }

    fn transforms(self) -> impl Iterator<Item = Transform> {
        let answered = TransformType::ADDKE.into_iter().zip(self.0);
        answered.filter_map(|(kind, id)| id.map(|id| transform(kind, id)))
    }
}

/// No additional key exchange, where one is optional (RFC 9370 §2.2.1).
const NO_EXCHANGE: u16 = 0;

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
    /// What else goes into the keys; only beside a key exchange of a group.
    pub(crate) exchanges: Exchanges,
}

const ESP_AEADS: [EspCipher; 3] =
    [EspCipher::Aes256Gcm16, EspCipher::Aes128Gcm16, EspCipher::ChaCha20Poly1305];

fn esp_cbc(integrity: Integrity) -> [EspCipher; 2] {
    [EspCipher::Aes256Cbc(integrity), EspCipher::Aes128Cbc(integrity)]
}

fn esp_number(cipher: EspCipher) -> (u16, Option<u16>) {
    match cipher {
        EspCipher::Aes256Gcm16 => (20, Some(256)),
        EspCipher::Aes128Gcm16 => (20, Some(128)),
        EspCipher::ChaCha20Poly1305 => (28, None),
        EspCipher::Aes256Cbc(_) => (12, Some(256)),
        EspCipher::Aes128Cbc(_) => (12, Some(128)),
    }
}

/// Everything we can do for a child, with an additional key exchange first if there may be one. Both
/// values of ESN are offered: libreswan takes the first,
/// strongSwan over libipsec knows only the second.
pub(crate) fn offer_esp(suites: Suites, spi: [u8; 4], offer: EspOffer) -> Vec<Proposal> {
    let mut proposals = Vec::new();
    for mut plain in cipher_sets(suites, esp_number, ESP_AEADS, esp_cbc) {
        plain.extend([1, 0].map(|id| transform(TransformType::ESN, id)));
        if offer == EspOffer::WithKe {
            if suites.additional && proposals.is_empty() {
                let ke = transform(TransformType::ADDKE1, AdditionalKe::MlKem768.number());
                let hybrid = plain.iter().copied().chain(suites.group_transforms()).chain([ke]);
                proposals.push(hybrid.collect());
            }
            proposals
                .push(plain.iter().copied().chain(suites.group_transforms()).collect::<Vec<_>>());
        }
        proposals.push(plain);
    }
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
/// proposal. `ke_group` is the group of the peer's KE payload, if there is one. The choice may name
/// another group than that: then the answer is INVALID_KE_PAYLOAD.
pub(crate) fn choose_esp(
    suites: Suites,
    proposals: &[Proposal],
    ke_group: Option<u16>,
) -> Option<(EspChoice, u32, u8)> {
    let look = |additional, cbc| {
        proposals.iter().find_map(|proposal| {
            let spi: [u8; 4] = proposal.spi.as_slice().try_into().ok()?;
            if proposal.protocol != ProtocolId::ESP {
                return None;
            }
            let choice = esp_choice(suites, proposal, ke_group, additional, cbc)?;
            (choice.exchanges.method().is_some() == additional).then_some((
                choice,
                u32::from_be_bytes(spi),
                proposal.number,
            ))
        })
    };
    // As for an IKE SA.
    let mut hybrid = rounds(suites).filter(|_| suites.additional && ke_group.is_some());
    hybrid
        .find_map(|cbc| look(true, cbc))
        .or_else(|| rounds(suites).find_map(|cbc| look(false, cbc)))
}

fn esp_choice(
    suites: Suites,
    proposal: &Proposal,
    ke_group: Option<u16>,
    additional: bool,
    cbc: bool,
) -> Option<EspChoice> {
    const KNOWN: [TransformType; 4] =
        [TransformType::ENCR, TransformType::INTEG, TransformType::KE, TransformType::ESN];
    let mut known = KNOWN.to_vec();
    known.extend(TransformType::ADDKE);
    if !only_types(proposal, &known) {
        return None;
    }
    let exchanges = Exchanges::of(proposal, additional)?;
    let has = |kind, id| has(proposal, kind, id, None);
    let cipher = cipher_of(proposal, cbc, |c| esp_number(*c), &ESP_AEADS, esp_cbc)?;
    // RFC 7296 §3.3.3 makes ESN mandatory in a proposal; some leave it out and mean "no".
    let silent = !proposal.transforms.iter().any(|t| t.kind == TransformType::ESN);
    let esn = has(TransformType::ESN, 1);
    if !esn && !silent && !has(TransformType::ESN, 0) {
        return None;
    }
    let wants_ke = proposal.transforms.iter().any(|t| t.kind == TransformType::KE);
    let group = match ke_group {
        Some(sent) => suites
            .group(sent)
            .into_iter()
            .chain(suites.groups())
            .find(|g| has(TransformType::KE, g.number())),
        None => None,
    };
    if wants_ke && group.is_none() && !has(TransformType::KE, 0) {
        return None;
    }
    // It stands beside the first one, never alone (RFC 9370 §2.2.4).
    if group.is_none() && exchanges.method().is_some() {
        return None;
    }
    Some(EspChoice { cipher, esn, group, exchanges })
}

/// The proposal that states a choice.
pub(crate) fn answer_esp(number: u8, choice: EspChoice, spi: [u8; 4]) -> Proposal {
    let (id, key_length) = esp_number(choice.cipher);
    let mut transforms = vec![Transform::new(TransformType::ENCR, id, key_length)];
    let integrity = choice.cipher.integrity().map(integrity_number);
    transforms.extend(integrity.map(|id| transform(TransformType::INTEG, id)));
    transforms.extend(choice.group.map(|g| transform(TransformType::KE, g.number())));
    transforms.push(transform(TransformType::ESN, choice.esn.into()));
    transforms.extend(choice.exchanges.transforms());
    Proposal { number, protocol: ProtocolId::ESP, spi: spi.to_vec(), transforms }
}

/// What the responder chose from [`offer_esp`], and its SPI. `ke_group` is the group of the KE
/// payload that came with the choice.
pub(crate) fn confirm_esp(
    suites: Suites,
    proposals: &[Proposal],
    offer: EspOffer,
    ke_group: Option<u16>,
) -> Option<(EspChoice, u32)> {
    let proposal = single(proposals, ProtocolId::ESP, 4)?;
    if has_twice(proposal) {
        return None;
    }
    let wants_ke = proposal.transforms.iter().any(|t| t.kind == TransformType::KE && t.id != 0);
    let (choice, spi, _) = choose_esp(suites, proposals, ke_group.filter(|_| wants_ke))?;
    let cbc = u8::from(choice.cipher.integrity().is_some());
    let hybrid = choice.exchanges.method().is_some();
    let place = match offer {
        EspOffer::WithoutKe => 1 + cbc,
        EspOffer::WithKe if hybrid => 1,
        EspOffer::WithKe => u8::from(suites.additional) + 2 * cbc + if wants_ke { 1 } else { 2 },
    };
    let asked = offer == EspOffer::WithKe || !wants_ke;
    // What was not asked for must not be answered, not even with "none".
    let answered = choice.exchanges.len() == usize::from(hybrid) && !(hybrid && cbc > 0);
    let offered = proposal.number == place && asked && answered;
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

/// An AEAD goes without: INTEG is absent, or may be NONE (RFC 7296 §3.3.3).
fn integrity_is_none(proposal: &Proposal) -> bool {
    let mut integ =
        proposal.transforms.iter().filter(|t| t.kind == TransformType::INTEG).peekable();
    integ.peek().is_none() || integ.any(|t| t.id == 0)
}

fn has(proposal: &Proposal, kind: TransformType, id: u16, key_length: Option<u16>) -> bool {
    proposal.transforms.contains(&Transform::new(kind, id, key_length))
}

#[cfg(test)]
mod tests;
