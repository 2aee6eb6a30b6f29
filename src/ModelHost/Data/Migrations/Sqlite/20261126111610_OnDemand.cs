using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace ModelHost.Data.Migrations.Sqlite
{
    /// <inheritdoc />
    public partial class OnDemand : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<bool>(
                name: "StartOnDemand",
                table: "Deployments",
                type: "INTEGER",
                nullable: false,
                defaultValue: false);
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "StartOnDemand",
                table: "Deployments");
        }
    }
}
