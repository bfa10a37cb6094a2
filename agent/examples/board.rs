//! Reads a Raspberry Pi through rppal: which board it is, a line, and a TMP105 or LM75 at 0x48 on its I2C bus. It drives
//! line 17 before it reads it, so nothing may be connected there.

use rppal::{
    gpio::{Gpio, Level},
    i2c::I2c,
    system::DeviceInfo,
};
use std::error::Error;

const LINE: u8 = 17;
const CHIP: u16 = 0x48;

fn main() -> Result<(), Box<dyn Error>> {
    let board = DeviceInfo::new()?;
    println!("board: {} with {}", board.model(), board.soc());
    let gpio = Gpio::new()?;
    for level in [Level::High, Level::Low] {
        let mut output = gpio.get(LINE)?.into_output();
        output.set_reset_on_drop(false);
        output.write(level);
        drop(output);
        println!("line {LINE}: driven {level}, reads {}", gpio.get(LINE)?.into_input().read());
    }
    let mut bus = I2c::new()?;
    bus.set_slave_address(CHIP)?;
    let mut register = [0; 2];
    bus.write_read(&[0], &mut register)?;
    println!("bus {}, {CHIP:#x}: {} °C", bus.bus(), f64::from(i16::from_be_bytes(register)) / 256.0);
    Ok(())
}
