"""A whole line without hardware: real protocols, scripted faults, a broker that goes away and comes back."""
