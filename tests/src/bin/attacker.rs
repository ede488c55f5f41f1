//! Runs one attack, told as JSON in its only argument, and reports as one line of JSON.

use swarmkv_tests::rogue::{Orders, run};

fn main() -> Result<(), String> {
    let text = std::env::args().nth(1).ok_or("usage: attacker ORDERS-AS-JSON")?;
    let orders: Orders = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let report = runtime.block_on(run(orders))?;
    println!("{}", serde_json::to_string(&report).map_err(|e| e.to_string())?);
    Ok(())
}
