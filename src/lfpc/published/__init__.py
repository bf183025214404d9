"""Published files as samples: one file a data set or benchmark."""
