"""The commands of `holdfast` beside its demos."""
