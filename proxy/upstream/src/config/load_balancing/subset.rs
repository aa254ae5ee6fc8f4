//! `lb_subset_config` and the subset policy, which are the same but for where they stand.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::cluster::{LbSubsetConfig, lb_subset_config as legacy};
use dhow_proto::envoy::extensions::load_balancing_policies::subset::v3::{
    Subset,
    subset::{LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy, LbSubsetSelector, lb_subset_selector},
};
use dhow_proto::google::protobuf::Struct;

use crate::lb::{SelectorFallback, SubsetConfig, SubsetFallback, SubsetSelector};

use lb_subset_selector::LbSubsetSelectorFallbackPolicy as SelectorPolicy;

pub(super) fn lower_legacy(message: LbSubsetConfig, path: &FieldPath) -> Result<SubsetConfig, ConfigError> {
    let LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = message;
    // Both generations number their values alike.
    let selectors = subset_selectors.into_iter().map(|selector| {
        let legacy::LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset } =
            selector;
        LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
    });
    lower_fields(
        Fields { fallback_policy, default_subset, metadata_fallback_policy, selectors: selectors.collect() },
        SubsetConfig {
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            ..SubsetConfig::default()
        },
        path,
    )
}

/// Everything but `subset_lb_policy`.
pub(super) fn lower_typed(message: Subset, path: &FieldPath) -> Result<SubsetConfig, ConfigError> {
    let Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        // Read by the caller: it is a policy of its own.
        subset_lb_policy: _,
    } = message;
    lower_fields(
        Fields { fallback_policy, default_subset, metadata_fallback_policy, selectors: subset_selectors },
        SubsetConfig {
            allow_redundant_keys,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            ..SubsetConfig::default()
        },
        path,
    )
}

struct Fields {
    fallback_policy: i32,
    default_subset: Option<Struct>,
    metadata_fallback_policy: i32,
    selectors: Vec<LbSubsetSelector>,
}

fn lower_fields(fields: Fields, flags: SubsetConfig, path: &FieldPath) -> Result<SubsetConfig, ConfigError> {
    let Fields { fallback_policy, default_subset, metadata_fallback_policy, selectors } = fields;
    // The rules of `load_balancing_policy` are not looked at: of numbers without a name Envoy does what is written last here.
    let fallback = match LbSubsetFallbackPolicy::try_from(fallback_policy) {
        Ok(LbSubsetFallbackPolicy::NoFallback) => SubsetFallback::None,
        Ok(LbSubsetFallbackPolicy::AnyEndpoint) => SubsetFallback::Any,
        Ok(LbSubsetFallbackPolicy::DefaultSubset) | Err(_) => SubsetFallback::Default,
    };
    let fallback_list = LbSubsetMetadataFallbackPolicy::try_from(metadata_fallback_policy)
        == Ok(LbSubsetMetadataFallbackPolicy::FallbackList);
    let selectors_path = path.field("subset_selectors");
    // A selector without keys chooses nothing; Envoy does not look at the rest of it.
    let selectors = selectors
        .into_iter()
        .enumerate()
        .filter(|(_, selector)| !selector.keys.is_empty())
        .map(|(index, selector)| lower_selector(selector, &selectors_path.index(index)));
    let mut selectors: Vec<SubsetSelector> = selectors.collect::<Result<_, _>>()?;
    ignore_covered_fallbacks(&mut selectors);
    Ok(SubsetConfig {
        fallback,
        default_subset: default_subset.unwrap_or_default(),
        selectors,
        fallback_list,
        ..flags
    })
}

/// Envoy files selectors by their keys in order, one key after the other, and finds the place of a selector taken when an
/// earlier one begins with the same keys: its fallback is then the cluster's.
fn ignore_covered_fallbacks(selectors: &mut [SubsetSelector]) {
    for at in 1..selectors.len() {
        let (earlier, rest) = selectors.split_at_mut(at);
        if earlier.iter().any(|other| other.keys.starts_with(&rest[0].keys)) {
            rest[0].fallback = None;
        }
    }
}

fn lower_selector(selector: LbSubsetSelector, path: &FieldPath) -> Result<SubsetSelector, ConfigError> {
    let LbSubsetSelector { mut keys, single_host_per_subset, fallback_policy, fallback_keys_subset } =
        selector;
    keys.sort();
    keys.dedup();
    let keys_path = path.field("fallback_keys_subset");
    let policy = SelectorPolicy::try_from(fallback_policy).unwrap_or(SelectorPolicy::NotDefined);
    if policy != SelectorPolicy::KeysSubset && !fallback_keys_subset.is_empty() {
        let reason = "fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy";
        return Err(ConfigError::new(keys_path, reason));
    }
    let simple = |policy| Some(SelectorFallback::Simple(policy));
    let fallback = match policy {
        SelectorPolicy::NotDefined => None,
        SelectorPolicy::NoFallback => simple(SubsetFallback::None),
        SelectorPolicy::AnyEndpoint => simple(SubsetFallback::Any),
        SelectorPolicy::DefaultSubset => simple(SubsetFallback::Default),
        SelectorPolicy::KeysSubset => {
            let mut fewer = fallback_keys_subset;
            fewer.sort();
            fewer.dedup();
            let fault = if fewer.is_empty() {
                Some("fallback_keys_subset cannot be empty")
            } else if fewer.iter().any(|key| !keys.contains(key)) {
                Some("fallback_keys_subset must be a subset of selector keys")
            } else if fewer.len() == keys.len() {
                Some("fallback_keys_subset cannot be equal to keys")
            } else {
                None
            };
            if let Some(fault) = fault {
                return Err(ConfigError::new(keys_path, fault));
            }
            Some(SelectorFallback::Keys(fewer))
        }
    };
    Ok(SubsetSelector { keys, single_host: single_host_per_subset, fallback })
}
