//! What a module must be before it is compiled: section 1 of `filters/ABI.md`, in its order. Reads sections, compiles nothing.

use std::borrow::Cow;

use wasmparser::{FuncType, MemoryType, ValType, Validator, WasmFeatures, types};

use super::{Refused, abi};
use abi::{Hook, limits as own, names};
use base::model::limits;

/// What a module may use; everything else is switched off here and in the engine. `GC_TYPES` is absent: of the reference types it
/// leaves `funcref`, and no import of Crossfade uses another.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::REFERENCE_TYPES);

/// The first bytes of every binary module.
const MAGIC: &[u8] = b"\0asm";

/// What is known of a module that has passed the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// In the order of [`Hook::ALL`].
    pub hooks: [bool; 4],
    pub configure: bool,
    /// Imports `frame_read`.
    pub reads_frames: bool,
}

fn refused(rule: &'static str, text: String) -> Refused {
    Refused { rule, text }
}

/// The binary module in `given`, which is binary or WAT text.
pub(super) fn binary<'g>(name: &str, given: &'g [u8]) -> Result<Cow<'g, [u8]>, Refused> {
    if given.starts_with(MAGIC) {
        return sized(name, Cow::Borrowed(given));
    }
    if given.len() > limits::POLICY_WAT_BYTES_MAX {
        return Err(refused(
            "size",
            format!("policy {name} has {} bytes; {} of text are allowed", given.len(), limits::POLICY_WAT_BYTES_MAX),
        ));
    }
    let neither = |why: &dyn std::fmt::Display| {
        refused("validate", format!("policy {name} is neither a WebAssembly module nor the text of one: {why}"))
    };
    let text = std::str::from_utf8(given).map_err(|error| neither(&error))?;
    let translated = wat::parse_str(text).map_err(|error| neither(&error))?;
    sized(name, Cow::Owned(translated))
}

fn sized<'g>(name: &str, wasm: Cow<'g, [u8]>) -> Result<Cow<'g, [u8]>, Refused> {
    if wasm.len() <= own::MODULE_BYTES_MAX {
        return Ok(wasm);
    }
    let text = format!("policy {name} is a module of {} bytes; {} are allowed", wasm.len(), own::MODULE_BYTES_MAX);
    Err(refused("size", text))
}

/// # Errors
/// The first broken rule.
pub(super) fn check(name: &str, wasm: &[u8]) -> Result<Facts, Refused> {
    let types = Validator::new_with_features(FEATURES)
        .validate_all(wasm)
        .map_err(|error| refused("validate", format!("policy {name} is not a valid module: {error}")))?;
    let types = &types.as_ref();
    marker(name, types)?;
    let reads_frames = imports(name, types)?;
    memory_and_table(name, types)?;
    let (hooks, configure) = exports(name, types)?;
    Ok(Facts { hooks, configure, reads_frames })
}

fn exported<'t>(types: &'t types::TypesRef<'_>) -> impl Iterator<Item = (&'t str, types::EntityType)> {
    types.core_exports().into_iter().flatten()
}

fn marker(name: &str, types: &types::TypesRef<'_>) -> Result<(), Refused> {
    match exported(types).find(|(export, _)| *export == names::MARKER).map(|(_, entity)| entity) {
        Some(types::EntityType::Func(_) | types::EntityType::FuncExact(_) | types::EntityType::Global(_)) => {
            return Ok(());
        }
        Some(_) => {
            let text = format!("policy {name} exports {} as neither a function nor a global", names::MARKER);
            return Err(refused("marker", text));
        }
        None => {}
    }
    if let Some((other, _)) = exported(types).find(|(export, _)| export.starts_with(names::MARKER_STEM)) {
        let text = format!("policy {name} is for ABI {}; this host supports {}", quoted(other), names::MARKER);
        return Err(refused("version", text));
    }
    let text = format!("policy {name} exports no {}: it is not a Crossfade policy", names::MARKER);
    Err(refused("marker", text))
}

/// A name from a module, which may be long and contain anything.
fn quoted(found: &str) -> String {
    format!("{:?}", super::text::printable(found.as_bytes(), limits::NAME_BYTES_MAX))
}

const I32: ValType = ValType::I32;
const I64: ValType = ValType::I64;

/// Parameters and results.
type Signature = (&'static [ValType], &'static [ValType]);

fn import_signature(name: &str) -> Option<Signature> {
    match name {
        "log" => Some((&[I32, I32, I32], &[I32])),
        "counter_add" => Some((&[I32, I32, I64], &[I32])),
        "frame_read" => Some((&[I32, I32, I32, I32], &[I32])),
        "now_ms" | "random" => Some((&[], &[I64])),
        _ => None,
    }
}

fn export_signature(name: &str) -> Option<Signature> {
    match name {
        names::BUFFER | names::BUFFER_LEN => Some((&[], &[I32])),
        names::CONFIGURE => Some((&[I32], &[I32])),
        _ => hook_named(name).map(|_| -> Signature { (&[I32], &[I64]) }),
    }
}

/// Name of a hook's export.
pub(super) fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Request => names::ON_REQUEST,
        Hook::Pair => names::ON_PAIR,
        Hook::Window => names::ON_WINDOW,
        Hook::Record => names::ON_RECORD,
    }
}

fn hook_named(name: &str) -> Option<Hook> {
    Hook::ALL.iter().copied().find(|hook| hook_name(*hook) == name)
}

fn written(signature: Signature) -> String {
    let list = |kinds: &[ValType]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("({}) -> ({})", list(signature.0), list(signature.1))
}

fn is_function(types: &types::TypesRef<'_>, entity: types::EntityType, wanted: Signature) -> bool {
    let (types::EntityType::Func(id) | types::EntityType::FuncExact(id)) = entity else {
        return false;
    };
    match &types[id].composite_type.inner {
        wasmparser::CompositeInnerType::Func(found) => has_signature(found, wanted),
        _ => false,
    }
}

fn has_signature(found: &FuncType, wanted: Signature) -> bool {
    found.params() == wanted.0 && found.results() == wanted.1
}

/// Returns whether `frame_read` is among them.
fn imports(name: &str, types: &types::TypesRef<'_>) -> Result<bool, Refused> {
    let mut reads_frames = false;
    for (module, import, entity) in types.core_imports().into_iter().flatten() {
        let signature = import_signature(import).filter(|_| module == names::IMPORT_MODULE);
        let Some(signature) = signature else {
            let text = format!(
                "policy {name} imports {} from {}; a policy may import {} from {} and nothing else",
                quoted(import),
                quoted(module),
                names::IMPORTS.join(", "),
                names::IMPORT_MODULE
            );
            return Err(refused("import", text));
        };
        if !is_function(types, entity, signature) {
            let text =
                format!("policy {name} imports {import} with another type; it is a function {}", written(signature));
            return Err(refused("import", text));
        }
        reads_frames |= import == "frame_read";
    }
    Ok(reads_frames)
}

fn memory_and_table(name: &str, types: &types::TypesRef<'_>) -> Result<(), Refused> {
    let memory = exported(types).find(|(export, _)| *export == names::MEMORY).map(|(_, entity)| entity);
    let Some(types::EntityType::Memory(MemoryType { memory64: false, shared: false, initial, .. })) = memory else {
        let text = format!("policy {name} exports no 32-bit memory of its own as \"{}\"", names::MEMORY);
        return Err(refused("memory", text));
    };
    if types.memory_count() != 1 {
        return Err(refused("memory", format!("policy {name} has {} memories; one is needed", types.memory_count())));
    }
    if initial > u64::from(own::MEMORY_PAGES_MAX) {
        let text = format!(
            "policy {name} begins with {initial} pages of memory; {} are allowed (a smaller stack often helps)",
            own::MEMORY_PAGES_MAX
        );
        return Err(refused("memory", text));
    }
    let tables = types.table_count();
    if tables > own::TABLES_MAX {
        return Err(refused("table", format!("policy {name} has {tables} tables; {} is allowed", own::TABLES_MAX)));
    }
    for at in 0..tables {
        let elements = types.table_at(at).initial;
        if elements > u64::from(own::TABLE_ELEMENTS_MAX) {
            let text = format!(
                "policy {name} begins with a table of {elements} elements; {} are allowed",
                own::TABLE_ELEMENTS_MAX
            );
            return Err(refused("table", text));
        }
    }
    Ok(())
}

fn exports(name: &str, types: &types::TypesRef<'_>) -> Result<([bool; 4], bool), Refused> {
    let mut hooks = [false; 4];
    let (mut buffer, mut buffer_len, mut configure) = (false, false, false);
    for (export, entity) in exported(types) {
        if export == names::MARKER || !export.starts_with("cf_") {
            continue;
        }
        let Some(signature) = export_signature(export) else {
            let text = format!(
                "policy {name} exports {}, which is not an export of a policy: check its spelling",
                quoted(export)
            );
            return Err(refused("export", text));
        };
        if !is_function(types, entity, signature) {
            let text =
                format!("policy {name} exports {export} with another type; it is a function {}", written(signature));
            return Err(refused("export", text));
        }
        match export {
            names::BUFFER => buffer = true,
            names::BUFFER_LEN => buffer_len = true,
            names::CONFIGURE => configure = true,
            _ => {
                if let Some(hook) = hook_named(export) {
                    hooks[super::slot(hook)] = true;
                }
            }
        }
    }
    for (there, export) in [(buffer, names::BUFFER), (buffer_len, names::BUFFER_LEN)] {
        if !there {
            return Err(refused("export", format!("policy {name} does not export {export}")));
        }
    }
    if hooks == [false; 4] {
        let all = Hook::ALL.iter().map(|hook| hook_name(*hook)).collect::<Vec<_>>().join(", ");
        return Err(refused("export", format!("policy {name} has no hook; it needs at least one of {all}")));
    }
    Ok((hooks, configure))
}
