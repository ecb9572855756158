//! A cluster's names: a server that answers for services, and for the pods of those without an address.

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
};

use serde_json::{Value, json};

use super::{
    ask,
    daemons::{DNS, DOMAIN},
    network::NODE,
};

/// The types of records (RFC 1035, RFC 3596): an address, and one of IPv6, which nothing here has.
const ADDRESS: u16 = 1;

/// The service by which pods reach the server, as any other service.
pub(super) fn objects() -> [Value; 2] {
    let metadata = json!({ "name": "dns", "namespace": "kube-system" });
    let port = json!({ "name": "dns", "port": 53, "protocol": "UDP" });
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "clusterIP": DNS, "ports": [port] },
        }),
        json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
            "subsets": [{ "addresses": [{ "ip": NODE }], "ports": [port] }],
        }),
    ]
}

/// Answers for as long as this process lives.
pub(super) fn serve() {
    let socket = UdpSocket::bind((NODE, 53)).expect("bind the port of DNS");
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            if let Some(answer) = answer(&packet[..length], addresses) {
                // A client that is gone asks no more.
                let _ = socket.send_to(&answer, client);
            }
        }
    });
}

/// The answer to a question, unless that is none.
fn answer(query: &[u8], find: impl Fn(&str) -> Option<Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(query.get(at..at + length)?).ok()?);
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(HEADER..at + 4)?;
    let found = find(&labels.join("."));
    // An answer, with recursion as it was asked for; the last of its bits say that there is no such name.
    let flags: u16 = if found.is_some() { 0x8180 } else { 0x8183 };
    let addresses = found.filter(|_| kind == ADDRESS).unwrap_or_default();
    let mut packet = query[..2].to_vec();
    packet.extend(flags.to_be_bytes());
    for count in [1, addresses.len(), 0, 0] {
        packet.extend(u16::try_from(count).ok()?.to_be_bytes());
    }
    packet.extend(question);
    for address in addresses {
        // The name of the question, its type and class, two seconds to live, four bytes.
        packet.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 2, 0, 4]);
        packet.extend(address.octets());
    }
    Some(packet)
}

/// The addresses of `[POD.]SERVICE.NAMESPACE.svc.DOMAIN`.
fn addresses(name: &str) -> Option<Vec<Ipv4Addr>> {
    let name = name.strip_suffix(DOMAIN)?.strip_suffix(".svc.")?;
    let mut labels = name.rsplit('.');
    let (namespace, service) = (labels.next()?, labels.next()?);
    let pod = labels.next();
    let object = ask(&format!(
        "/api/v1/namespaces/{namespace}/services/{service}"
    ))?;
    let address = object["spec"]["clusterIP"].as_str()?;
    if address != "None" {
        return Some(vec![address.parse().ok()?]);
    }
    let endpoints = ask(&format!(
        "/api/v1/namespaces/{namespace}/endpoints/{service}"
    ))?;
    let subsets = endpoints["subsets"].as_array()?;
    let found: Vec<Ipv4Addr> = subsets
        .iter()
        .flat_map(|subset| subset["addresses"].as_array().into_iter().flatten())
        .filter(|endpoint| pod.is_none_or(|pod| endpoint["hostname"] == pod))
        .filter_map(|endpoint| endpoint["ip"].as_str()?.parse().ok())
        .collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x01a\0\0\x01\0\x01";

    #[test]
    fn a_question_is_answered_with_addresses_or_with_their_lack() {
        let known = |name: &str| (name == "web.a").then(|| vec![Ipv4Addr::new(10, 0, 0, 1)]);
        let told = answer(QUERY, known).expect("an answer");
        assert_eq!(told[..4], *b"\x12\x34\x81\x80");
        assert_eq!(told[4..12], *b"\0\x01\0\x01\0\0\0\0");
        assert_eq!(told[told.len() - 4..], [10, 0, 0, 1]);
        let lacking = answer(QUERY, |_| None).expect("an answer");
        assert_eq!(lacking[..8], *b"\x12\x34\x81\x83\0\x01\0\0");
        for length in 0..QUERY.len() {
            assert_eq!(answer(&QUERY[..length], known), None, "{length} bytes");
        }
    }
}
