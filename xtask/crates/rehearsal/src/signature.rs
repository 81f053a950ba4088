//! The signature of a suite: InRelease must be signed by one of Debian's archive keys, which are part of this crate.

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::Signature;
use pgp::types::{KeyDetails, Tag};

/// Debian's archive keys for trixie, from its package debian-archive-keyring 2025.1, and the fingerprints that they
/// must have: of the certificate, and of the key in it that signs.
const KEYS: [PinnedKey; 2] = [
    PinnedKey {
        name: "Debian Archive Automatic Signing Key (13/trixie)",
        armored: include_str!("../keys/debian-archive-trixie-automatic.asc"),
        certificate: "04b54c3cdca79751b16bc6b5225629df75b188bd",
        signer: "b8e5f13176d2a7a75220028078dba3bc47ef2265",
    },
    PinnedKey {
        name: "Debian Stable Release Key (13/trixie)",
        armored: include_str!("../keys/debian-archive-trixie-stable.asc"),
        certificate: "41587f7db8c774bccf131416762f67a0b2c39de4",
        signer: "41587f7db8c774bccf131416762f67a0b2c39de4",
    },
];

struct PinnedKey {
    name: &'static str,
    armored: &'static str,
    certificate: &'static str,
    signer: &'static str,
}

/// Why a suite is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The file is not a cleartext-signed message.
    #[error(
        "the mirror's InRelease is not a signed message: {reason}\n  hint: a login page or a proxy's error may have \
         come instead; name another mirror with `--debian-mirror URL`"
    )]
    NotSigned {
        /// What the parser said.
        reason: String,
    },
    /// No pinned key made any of its signatures, or the text was changed after it was signed.
    #[error(
        "the mirror's InRelease has no valid signature of Debian's archive keys: {reason}\n  \
         hint: check this machine's clock; if it is right, the mirror is damaged or not Debian's, and nothing of it \
         was used: name another one with `--debian-mirror URL`"
    )]
    NotTrusted {
        /// What was found wrong for each key.
        reason: String,
    },
}

/// Returns the signed text of an InRelease file when a pinned key signed it and was valid then and `now` (seconds since
/// 1970). Nothing outside the signed part is returned.
pub fn verify(in_release: &[u8], now: u64) -> Result<String, SignatureError> {
    let not_signed = |reason: String| SignatureError::NotSigned { reason };
    let text = std::str::from_utf8(in_release).map_err(|_| not_signed("it is not text".to_owned()))?;
    let (message, _) = CleartextSignedMessage::from_string(text).map_err(|error| not_signed(error.to_string()))?;
    let mut reasons = Vec::new();
    for pinned in &KEYS {
        match signed_by(&message, pinned, now) {
            Ok(()) => return Ok(message.signed_text().replace("\r\n", "\n")),
            Err(reason) => reasons.push(format!("{}: {reason}", pinned.name)),
        }
    }
    Err(SignatureError::NotTrusted { reason: reasons.join("; ") })
}

fn signed_by(message: &CleartextSignedMessage, pinned: &PinnedKey, now: u64) -> Result<(), String> {
    let (certificate, _) = SignedPublicKey::from_string(pinned.armored).map_err(|error| error.to_string())?;
    if certificate.fingerprint().to_string() != pinned.certificate {
        return Err("the key that this program holds is not the pinned one".to_owned());
    }
    if !certificate.details.revocation_signatures.is_empty() {
        return Err("it was revoked".to_owned());
    }
    let primary = &certificate.primary_key;
    within_life(primary.created_at().as_secs(), &self_signatures(&certificate), now, "it")?;
    if pinned.signer == pinned.certificate {
        return acceptable(message.verify(primary).map_err(|_| "it did not sign this text".to_owned())?, now);
    }
    let subkey = certificate
        .public_subkeys
        .iter()
        .find(|subkey| subkey.fingerprint().to_string() == pinned.signer)
        .ok_or("it lacks the pinned subkey")?;
    // Binds the subkey to the certificate in both directions. The certificate's own `verify_bindings` would also want
    // the keys of third parties that certified it.
    subkey.verify_bindings(primary).map_err(|error| format!("its subkey is not bound to it: {error}"))?;
    let bindings: Vec<&Signature> = subkey.signatures.iter().collect();
    within_life(subkey.key.created_at().as_secs(), &bindings, now, "its subkey")?;
    acceptable(message.verify(&subkey.key).map_err(|_| "it did not sign this text".to_owned())?, now)
}

/// The signatures with which the key binds its own user ids: they hold its expiry.
fn self_signatures(certificate: &SignedPublicKey) -> Vec<&Signature> {
    let primary = &certificate.primary_key;
    let users = certificate.details.users.iter();
    users
        .flat_map(|user| user.signatures.iter().map(move |signature| (user, signature)))
        .filter(|(user, signature)| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok())
        .map(|(_, signature)| signature)
        .collect()
}

/// Checks a key's expiry by the newest signature that binds it.
fn within_life(created: u32, bindings: &[&Signature], now: u64, what: &str) -> Result<(), String> {
    let newest = bindings.iter().max_by_key(|signature| signature.created().map_or(0, |time| time.as_secs()));
    let life = newest.ok_or_else(|| format!("{what} is not bound by a valid signature"))?.key_expiration_time();
    match life.map(|life| u64::from(life.as_secs())) {
        Some(life) if life > 0 && now >= u64::from(created) + life => Err(format!("{what} has expired")),
        _ => Ok(()),
    }
}

/// Checks the signature itself: a strong hash, made in the past and not expired.
fn acceptable(signature: &Signature, now: u64) -> Result<(), String> {
    let strong = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
    if !signature.hash_alg().is_some_and(|hash| strong.contains(&hash)) {
        return Err("its signature uses a weak hash".to_owned());
    }
    let created = u64::from(signature.created().ok_or("its signature has no time")?.as_secs());
    // A day of tolerance for clocks that are behind.
    if created > now + 86_400 {
        return Err("its signature is from the future".to_owned());
    }
    match signature.signature_expiration_time().map(|life| u64::from(life.as_secs())) {
        Some(life) if life > 0 && now >= created + life => Err("its signature has expired".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Within the life of the pinned keys: 2026-01-01.
    const NOW: u64 = 1_767_225_600;

    fn certificates() -> Vec<SignedPublicKey> {
        KEYS.iter().map(|pinned| SignedPublicKey::from_string(pinned.armored).unwrap().0).collect()
    }

    #[test]
    fn the_embedded_keys_are_the_pinned_ones_and_expire_in_the_2030s() {
        for (pinned, certificate) in KEYS.iter().zip(certificates()) {
            assert_eq!(certificate.fingerprint().to_string(), pinned.certificate);
            let bindings = self_signatures(&certificate);
            assert!(!bindings.is_empty(), "{}", pinned.name);
            let created = certificate.primary_key.created_at().as_secs();
            assert!(within_life(created, &bindings, NOW, "it").is_ok());
            let message = within_life(created, &bindings, 2_100_000_000, "it").unwrap_err();
            assert!(message.contains("it has expired"), "{message}");
        }
    }

    #[test]
    fn a_message_that_is_not_signed_or_signed_by_nobody_is_refused() {
        assert!(matches!(verify(b"<html>log in</html>", NOW), Err(SignatureError::NotSigned { .. })));
        assert!(matches!(verify(b"\xff\xfe", NOW), Err(SignatureError::NotSigned { .. })));
        assert!(matches!(verify(b"", NOW), Err(SignatureError::NotSigned { .. })));
    }
}
