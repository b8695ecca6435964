module cardstock/which

go 1.19
