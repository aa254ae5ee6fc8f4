//! Which address to open in a browser: what the gateway's routes say.

use crate::fields::Field;
use crate::manifest::{ManifestFile, ObjectId};

/// The first path that a VirtualService of a gateway names, exact ones preferred; `/` where its routes match anything,
/// and nothing where no route leads in.
pub(crate) fn path(files: &[ManifestFile]) -> Option<String> {
    let services = files.iter().flat_map(|file| &file.documents).filter(|document| {
        ObjectId::of(&document.value)
            .is_ok_and(|id| id.kind == "VirtualService" && id.group == "networking.istio.io")
    });
    let (mut prefix, mut any) = (None, false);
    for document in services {
        let spec = Field::root(&document.value).get("spec");
        let gateways = spec.get("gateways").texts().unwrap_or_default();
        if !gateways.iter().any(|gateway| gateway != "mesh") {
            continue;
        }
        any = true;
        for route in spec.get("http").items().unwrap_or_default() {
            for matcher in route.get("match").items().unwrap_or_default() {
                let uri = matcher.get("uri");
                if let Ok(Some(path)) = uri.get("exact").optional_text() {
                    return Some(path.to_owned());
                }
                if let (None, Ok(Some(path))) = (&prefix, uri.get("prefix").optional_text()) {
                    prefix = Some(path.to_owned());
                }
            }
        }
    }
    any.then(|| prefix.filter(|path| path.starts_with('/')).unwrap_or_else(|| "/".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn path_of(http: &str) -> Option<String> {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{gateways: [gw], http: {http}}}\n"
        );
        path(&[ManifestFile::parse(Path::new("a.yaml"), text).unwrap()])
    }

    #[test]
    fn an_exact_path_is_preferred() {
        assert_eq!(
            path_of("[{match: [{uri: {prefix: /static}}, {uri: {exact: /page}}]}]"),
            Some("/page".to_owned())
        );
        assert_eq!(path_of("[{match: [{uri: {prefix: /api}}]}]"), Some("/api".to_owned()));
        assert_eq!(path_of("[{route: []}]"), Some("/".to_owned()));
        assert_eq!(path(&[]), None);
    }
}
