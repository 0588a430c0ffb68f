//! Files that JavaScript reads: local ones, the browser's storage, or a server's.

use std::ops::Range;

use gemma4_wgpu::{
    Error, Result,
    checkpoint::{NamedFile, RangeRead},
    model::source::LocalBoxFuture,
};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    /// `ModelFile` of web/js/files.ts.
    pub type ModelFile;

    #[wasm_bindgen(method, getter)]
    fn name(this: &ModelFile) -> String;

    #[wasm_bindgen(method, getter)]
    fn size(this: &ModelFile) -> f64;

    /// A promise of `length` bytes from `offset` on.
    #[wasm_bindgen(method, catch)]
    async fn read(this: &ModelFile, offset: f64, length: f64) -> Result<JsValue, JsValue>;
}

impl RangeRead for ModelFile {
    fn len(&self) -> u64 {
        self.size() as u64
    }

    fn read(&self, range: Range<u64>) -> LocalBoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async move {
            let bytes =
                ModelFile::read(self, range.start as f64, (range.end - range.start) as f64).await;
            let bytes = bytes.map_err(|error| reason(&error))?;
            let bytes: Uint8Array =
                bytes.dyn_into().map_err(|_| "read gave no Uint8Array".to_owned())?;
            Ok(bytes.to_vec())
        })
    }
}

/// The message of an exception.
fn reason(error: &JsValue) -> String {
    match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => format!("{error:?}"),
    }
}

/// The files of a JavaScript array. Errors: an element that is no file.
pub fn named(files: &Array) -> Result<Vec<NamedFile>> {
    let named = |value: JsValue| {
        if !value.is_object() {
            return Err(Error::Input("a source must consist of files".into()));
        }
        let file: ModelFile = value.unchecked_into();
        Ok(NamedFile { name: file.name(), bytes: Box::new(file) })
    };
    files.iter().map(named).collect()
}
