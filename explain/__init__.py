"""What the switches of the hosts hold, and do, and why: `lockgate trace`, `lockgate explain`, `lockgate audit`."""
