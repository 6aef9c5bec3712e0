//! Random chains of operators over random events and power cuts at random places, against a plain computation of the same.
