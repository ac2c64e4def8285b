"""How a mix is compiled and handed out."""
