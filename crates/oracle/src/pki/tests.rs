use super::*;
use std::os::unix::fs::PermissionsExt;
use weft_model::XtrId;

const NOW: u64 = 1_800_000_000;

fn request(sans: &[&str]) -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let sans: Vec<String> = sans.iter().map(|s| (*s).to_owned()).collect();
    let pem = CertificateParams::new(sans).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    (key, pem)
}

fn role(pem: &str) -> Role {
    role_of(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
}

#[test]
fn made_once_and_kept_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = Ca::open(dir.path(), NOW).unwrap();
    let again = Ca::open(dir.path(), NOW + 1).unwrap();
    assert_eq!(first.pem(), again.pem());
    assert_eq!(first.fingerprint().len(), 64);
    let mode = std::fs::metadata(dir.path().join(CA_KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(dir.path().join(CA_KEY)).unwrap();
    assert!(matches!(Ca::open(dir.path(), NOW), Err(PkiError::Half { .. })));
    std::fs::write(dir.path().join(CA_KEY), "x").unwrap();
    assert!(matches!(Ca::open(dir.path(), NOW), Err(PkiError::Unusable { .. })));
    // A first start that was cut short.
    std::fs::remove_file(dir.path().join(CA_CERTIFICATE)).unwrap();
    assert!(Ca::open(dir.path(), NOW).is_ok());
}

#[test]
fn only_the_key_of_a_request_counts() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::open(dir.path(), NOW).unwrap();
    let (_, pem) = request(&["oracle.weft.internal", "10.0.0.1"]);
    let asked = signing_request(&pem).unwrap();
    let nve = Role::Nve(XtrId([7; 16]));
    let signed = ca.sign(&asked, &nve, NOW, NVE_TTL_S).unwrap();
    assert_eq!((role(&signed.certificate), signed.expires_at), (nve, NOW + NVE_TTL_S));
    let der = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
    let text = String::from_utf8_lossy(&der).into_owned();
    assert!(!text.contains("oracle.weft.internal"), "requested names are ignored");

    // DER in base64, wrapped as it may be, is the same request.
    let base64: String = pem.lines().filter(|l| !l.starts_with("-----")).map(|l| format!("{l}\n")).collect();
    assert_eq!(signing_request(&base64).unwrap().hash(), asked.hash());
}

#[test]
fn bad_requests() {
    let (_, pem) = request(&[]);
    let base64: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    let der = decode(&base64);
    // Flip one bit of the signature, and one of the key.
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(signing_request(&encode(&forged)), Err(PkiError::Possession(_))));
    let mut longer = der.clone();
    longer.push(0);
    assert!(matches!(signing_request(&encode(&longer)), Err(PkiError::Request(_))));
    for cut in 0..der.len() {
        assert!(signing_request(&encode(&der[..cut])).is_err());
    }
    for bad in ["", "?", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", &"A".repeat(LIMIT_PLUS)] {
        assert!(matches!(signing_request(bad), Err(PkiError::Request(_))), "{bad:.20}");
    }
}

const LIMIT_PLUS: usize = (16 << 10) + 4;

fn decode(text: &str) -> Vec<u8> {
    base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap()
}

fn encode(octets: &[u8]) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, octets)
}

#[test]
fn roles_and_names() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::open(dir.path(), NOW).unwrap();
    for r in [Role::Operator("admin".into()), Role::Viewer("page".into())] {
        assert_eq!(role(&ca.credentials(&r, NOW, 60).unwrap().certificate), r);
    }
    let server = ca.server("o1", ["192.0.2.1", "2001:db8::1", "oracle.example"].into_iter(), NOW).unwrap();
    assert_eq!(role_of(&server.chain[0]).unwrap(), Role::Oracle("o1".into()));
    assert_eq!(&server.chain[1], ca.der());
    assert!(matches!(role_of(ca.der()), Err(PkiError::Role(_))));
    assert!(matches!(role_of(b"x"), Err(PkiError::Role(_))));
}
