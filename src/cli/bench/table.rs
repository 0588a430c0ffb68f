//! Results of `bench` as a table, CSV or JSON.

use serde::Serialize;

/// The results of one test. Rates are in tokens per second over all sequences.
#[derive(Debug, Serialize)]
pub struct Row {
    pub model: String,
    pub backend: &'static str,
    pub device: String,
    /// Bytes of weights on the device.
    pub weight_bytes: u64,
    pub test: String,
    pub repetitions: usize,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// The rate of each repetition, in the order of the runs.
    pub samples: Vec<f64>,
    /// Generation and steps: the time of a step in milliseconds.
    pub step_ms: Option<f64>,
    /// …and bytes of weights read per second, in GB/s.
    pub weight_gb_per_s: Option<f64>,
    /// …as a share of the read ceiling.
    pub of_read_ceiling: Option<f64>,
    /// Prompts: 10^12 operations per second in the layers' matrices (two a multiplication).
    pub tflop_per_s: Option<f64>,
}

/// Facts that apply to all rows.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// GB/s of a plain read on the device, measured in the same run; `None` on the CPU backend.
    pub read_ceiling_gb_per_s: Option<f64>,
    /// Most bytes held on the device.
    pub peak_bytes: u64,
}

const HEADERS: [&str; 9] = [
    "model",
    "size",
    "backend",
    "test",
    "t/s",
    "min … max",
    "ms/step",
    "GB/s (of ceiling)",
    "TFLOP/s",
];

fn cells(row: &Row) -> [String; 9] {
    let bandwidth = match (row.weight_gb_per_s, row.of_read_ceiling) {
        (Some(rate), Some(share)) => format!("{rate:.0} ({:.0}%)", 100.0 * share),
        (Some(rate), None) => format!("{rate:.1}"),
        _ => String::new(),
    };
    [
        row.model.clone(),
        format!("{:.2} GiB", row.weight_bytes as f64 / (1u64 << 30) as f64),
        row.backend.to_owned(),
        row.test.clone(),
        format!("{:.2}", row.median),
        format!("{:.2} … {:.2}", row.min, row.max),
        row.step_ms.map(|time| format!("{time:.2}")).unwrap_or_default(),
        bandwidth,
        row.tflop_per_s.map(|rate| format!("{rate:.1}")).unwrap_or_default(),
    ]
}

/// A Markdown table, which is also readable in a terminal.
pub fn markdown(rows: &[Row]) -> String {
    let table: Vec<[String; 9]> = rows.iter().map(cells).collect();
    let width = |column: usize| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.chain([HEADERS[column].chars().count()]).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().enumerate().map(|(i, cell)| format!("{cell:>0$}", width(i))).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = (0..HEADERS.len()).map(|i| "-".repeat(width(i) - 1) + ":").collect();
    let mut text = line(&HEADERS.map(str::to_owned));
    text += &format!("| {} |\n", rule.join(" | "));
    table.iter().for_each(|row| text += &line(row));
    text
}

/// A line of names, then a line per row. A list is one quoted cell, as JSON.
pub fn csv(rows: &[Row]) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let serde_json::Value::Object(fields) = serde_json::to_value(row)? else { continue };
        if index == 0 {
            text += &(fields.keys().cloned().collect::<Vec<_>>().join(",") + "\n");
        }
        let values: Vec<String> = fields
            .values()
            .map(|value| match value {
                serde_json::Value::Null => String::new(),
                list @ serde_json::Value::Array(_) => format!("\"{list}\""),
                value => value.to_string(),
            })
            .collect();
        text += &(values.join(",") + "\n");
    }
    Ok(text)
}
