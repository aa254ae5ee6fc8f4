//! Addresses of a mesh in 127.0.0.0/8. Each mesh has a number; its parts have addresses of their own, so that every pod can use
//! the ports it likes, and several meshes can run beside each other.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use crate::error::UpError;

/// Most pods of one mesh.
pub(crate) const MOST_PODS: usize = 250;

/// Port that is held while the mesh with this number runs. Nothing is served there.
const CLAIM_PORT: u16 = 15099;

/// The number of a mesh, with a socket by which the kernel keeps others from using it.
#[derive(Debug)]
pub(crate) struct MeshNumber {
    number: u8,
    claim: TcpListener,
}

impl MeshNumber {
    /// Takes the first free number.
    pub(crate) fn claim() -> Result<Self, UpError> {
        for number in 0..=u8::MAX {
            match TcpListener::bind((control_address(number), CLAIM_PORT)) {
                Ok(claim) => return Ok(Self { number, claim }),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Err(UpError::Addresses(format!(
                        "cannot use {} for the mesh, which needs all of 127.0.0.0/8 on the loopback interface: {error}",
                        control_address(number)
                    )));
                }
            }
        }
        Err(UpError::Addresses(
            "256 meshes run on this machine already; their addresses are used up".to_owned(),
        ))
    }

    /// The socket again, for a process that has to keep the number when this one is gone.
    pub(crate) fn share(&self) -> std::io::Result<OwnedFd> {
        self.claim.try_clone().map(OwnedFd::from)
    }

    /// Where the control plane listens.
    pub(crate) fn control(&self) -> IpAddr {
        control_address(self.number)
    }

    /// Addresses of the pod with this index, which must be less than [`MOST_PODS`].
    pub(crate) fn pod(&self, index: usize) -> PodAddresses {
        let last =
            u8::try_from(index + 2).expect("the number of pods is checked before addresses are given out");
        PodAddresses {
            pod: Ipv4Addr::new(127, 64, self.number, last).into(),
            application: Ipv4Addr::new(127, 65, self.number, last).into(),
        }
    }
}

fn control_address(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 64, number, 1).into()
}

/// The two addresses of a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PodAddresses {
    /// The pod's own: its sidecar listens there.
    pub pod: IpAddr,
    /// Where its application listens, behind the sidecar.
    pub application: IpAddr,
}

/// The gateway's port on 127.0.0.1: `wanted` if nobody listens there, or any free one when that is 0.
pub(crate) fn gateway_port(wanted: u16) -> Result<u16, UpError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, wanted));
    match TcpListener::bind(address).and_then(|listener| listener.local_addr()) {
        Ok(address) => Ok(address.port()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(UpError::GatewayPort { port: wanted }),
        Err(error) => Err(UpError::Addresses(format!("cannot listen on {address}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meshes_and_pods_have_addresses_of_their_own() {
        let (one, two) = (MeshNumber::claim().unwrap(), MeshNumber::claim().unwrap());
        assert_ne!(one.control(), two.control());
        let pods = [one.pod(0), one.pod(1), two.pod(0), one.pod(MOST_PODS - 1)];
        for (index, pod) in pods.iter().enumerate() {
            assert_ne!(pod.pod, pod.application);
            for other in &pods[index + 1..] {
                assert_ne!(pod, other);
            }
        }
    }

    #[test]
    fn a_taken_gateway_port_is_named() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let error = gateway_port(port).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--gateway-port"), "{error}");
        assert_ne!(gateway_port(0).unwrap(), 0);
    }
}
