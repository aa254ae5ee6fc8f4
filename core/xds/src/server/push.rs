//! A response that shares its resources with every other session, and its encoding.

use std::sync::Arc;

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};

use crate::messages::{ControlPlane, DeltaDiscoveryResponse, DiscoveryResponse, WireResource};
use crate::{Resource, Response, Variant};

/// A response to send. Its resources are shared, not copied, until they are written to the wire.
#[derive(Clone, Debug)]
pub struct Push {
    pub(super) variant: Variant,
    pub(super) type_url: Arc<str>,
    pub(super) nonce: String,
    pub(super) version: String,
    pub(super) resources: Vec<Resource>,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) control_plane: Option<Arc<str>>,
}

/// Numbers of the fields of `DiscoveryResponse`.
mod sotw_field {
    pub(super) const VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const CONTROL_PLANE: u32 = 6;
}

/// Numbers of the fields of `DeltaDiscoveryResponse`.
mod delta_field {
    pub(super) const SYSTEM_VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED_RESOURCES: u32 = 6;
    pub(super) const CONTROL_PLANE: u32 = 7;
}

/// Numbers of the fields of `Resource`.
mod resource_field {
    pub(super) const VERSION: u32 = 1;
    pub(super) const RESOURCE: u32 = 2;
    pub(super) const NAME: u32 = 3;
}

/// The number of the only field of `ControlPlane`.
const IDENTIFIER: u32 = 1;

impl Push {
    /// The type of its resources.
    pub fn type_url(&self) -> &Arc<str> {
        &self.type_url
    }

    /// What the client's answer will carry.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// The version of the response as a whole.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The resources in it.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The names that it says no longer exist.
    pub fn removed(&self) -> &[Arc<str>] {
        &self.removed
    }

    /// The exact number of bytes that [`encode`](Self::encode) writes.
    pub fn encoded_len(&self) -> usize {
        let (version, type_url, nonce) = (&self.version, &self.type_url, &self.nonce);
        match self.variant {
            Variant::StateOfTheWorld => {
                text_len(sotw_field::VERSION_INFO, version)
                    + self
                        .resources
                        .iter()
                        .map(|resource| message::encoded_len(sotw_field::RESOURCES, &*resource.body))
                        .sum::<usize>()
                    + text_len(sotw_field::TYPE_URL, type_url)
                    + text_len(sotw_field::NONCE, nonce)
                    + self.control_plane_len(sotw_field::CONTROL_PLANE)
            }
            Variant::Delta => {
                text_len(delta_field::SYSTEM_VERSION_INFO, version)
                    + self
                        .resources
                        .iter()
                        .map(|resource| nested_len(delta_field::RESOURCES, resource_len(resource)))
                        .sum::<usize>()
                    + text_len(delta_field::TYPE_URL, type_url)
                    + text_len(delta_field::NONCE, nonce)
                    + self
                        .removed
                        .iter()
                        .map(|name| nested_len(delta_field::REMOVED_RESOURCES, name.len()))
                        .sum::<usize>()
                    + self.control_plane_len(delta_field::CONTROL_PLANE)
            }
        }
    }

    /// Writes the response message, without gRPC's framing; each body is copied once.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self.variant {
            Variant::StateOfTheWorld => {
                text(sotw_field::VERSION_INFO, &self.version, out);
                for resource in &self.resources {
                    message::encode(sotw_field::RESOURCES, &*resource.body, out);
                }
                text(sotw_field::TYPE_URL, &self.type_url, out);
                text(sotw_field::NONCE, &self.nonce, out);
                self.encode_control_plane(sotw_field::CONTROL_PLANE, out);
            }
            Variant::Delta => {
                text(delta_field::SYSTEM_VERSION_INFO, &self.version, out);
                for resource in &self.resources {
                    nested(delta_field::RESOURCES, resource_len(resource), out);
                    text(resource_field::VERSION, &resource.version, out);
                    message::encode(resource_field::RESOURCE, &*resource.body, out);
                    text(resource_field::NAME, &resource.name, out);
                }
                text(delta_field::TYPE_URL, &self.type_url, out);
                text(delta_field::NONCE, &self.nonce, out);
                for name in &self.removed {
                    nested(delta_field::REMOVED_RESOURCES, name.len(), out);
                    out.put_slice(name.as_bytes());
                }
                self.encode_control_plane(delta_field::CONTROL_PLANE, out);
            }
        }
    }

    /// The response as a message of its own, for peers in the same process and for looking at.
    pub fn to_response(&self) -> Response {
        let control_plane = self
            .control_plane
            .as_deref()
            .map(|identifier| ControlPlane { identifier: identifier.to_owned() });
        match self.variant {
            Variant::StateOfTheWorld => Response::StateOfTheWorld(DiscoveryResponse {
                version_info: self.version.clone(),
                resources: self.resources.iter().map(|resource| (*resource.body).clone()).collect(),
                canary: false,
                type_url: self.type_url.as_ref().to_owned(),
                nonce: self.nonce.clone(),
                control_plane,
                resource_errors: Vec::new(),
            }),
            Variant::Delta => Response::Delta(DeltaDiscoveryResponse {
                system_version_info: self.version.clone(),
                resources: self.resources.iter().map(wire_resource).collect(),
                type_url: self.type_url.as_ref().to_owned(),
                removed_resources: self.removed.iter().map(|name| name.as_ref().to_owned()).collect(),
                removed_resource_names: Vec::new(),
                nonce: self.nonce.clone(),
                control_plane,
                resource_errors: Vec::new(),
            }),
        }
    }

    fn control_plane_len(&self, field: u32) -> usize {
        self.control_plane
            .as_deref()
            .map_or(0, |identifier| nested_len(field, text_len(IDENTIFIER, identifier)))
    }

    fn encode_control_plane(&self, field: u32, out: &mut impl BufMut) {
        if let Some(identifier) = self.control_plane.as_deref() {
            nested(field, text_len(IDENTIFIER, identifier), out);
            text(IDENTIFIER, identifier, out);
        }
    }
}

fn wire_resource(resource: &Resource) -> WireResource {
    WireResource {
        name: resource.name.as_ref().to_owned(),
        version: resource.version.as_ref().to_owned(),
        resource: Some((*resource.body).clone()),
        ..WireResource::default()
    }
}

fn resource_len(resource: &Resource) -> usize {
    text_len(resource_field::VERSION, &resource.version)
        + nested_len(resource_field::RESOURCE, resource.body.encoded_len())
        + text_len(resource_field::NAME, &resource.name)
}

/// The head of a length-delimited field.
fn nested(field: u32, length: usize, out: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn nested_len(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

/// A singular string field, left out when empty.
fn text(field: u32, value: &str, out: &mut impl BufMut) {
    if !value.is_empty() {
        nested(field, value.len(), out);
        out.put_slice(value.as_bytes());
    }
}

fn text_len(field: u32, value: &str) -> usize {
    if value.is_empty() { 0 } else { nested_len(field, value.len()) }
}
