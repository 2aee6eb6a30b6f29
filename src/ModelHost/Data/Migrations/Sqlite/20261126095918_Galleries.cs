using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace ModelHost.Data.Migrations.Sqlite
{
    /// <inheritdoc />
    public partial class Galleries : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "Galleries",
                columns: table => new
                {
                    Id = table.Column<int>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Kind = table.Column<string>(type: "TEXT", maxLength: 32, nullable: false),
                    Name = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Url = table.Column<string>(type: "TEXT", maxLength: 2048, nullable: false),
                    Mirrors = table.Column<string>(type: "TEXT", maxLength: 65536, nullable: false),
                    Verification = table.Column<string>(type: "TEXT", maxLength: 65536, nullable: true),
                    IsRemoved = table.Column<bool>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Galleries", x => x.Id);
                });

            migrationBuilder.CreateTable(
                name: "InstalledBackends",
                columns: table => new
                {
                    Id = table.Column<int>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    NodeId = table.Column<int>(type: "INTEGER", nullable: false),
                    Name = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Alias = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    MetaBackendFor = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Gallery = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    GalleryUrl = table.Column<string>(type: "TEXT", maxLength: 2048, nullable: false),
                    Uri = table.Column<string>(type: "TEXT", maxLength: 2048, nullable: false),
                    Version = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Digest = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Recipe = table.Column<string>(type: "TEXT", maxLength: 1048576, nullable: false),
                    IsSystem = table.Column<bool>(type: "INTEGER", nullable: false),
                    Details = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    InstalledAt = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_InstalledBackends", x => x.Id);
                    table.ForeignKey(
                        name: "FK_InstalledBackends_Nodes_NodeId",
                        column: x => x.NodeId,
                        principalTable: "Nodes",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateTable(
                name: "InstalledModels",
                columns: table => new
                {
                    Id = table.Column<int>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Name = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    NameKey = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Gallery = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    EntryName = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Backend = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Config = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    Metadata = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    Files = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    Nodes = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    Request = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    Details = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    InstalledAt = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_InstalledModels", x => x.Id);
                });

            migrationBuilder.CreateTable(
                name: "Jobs",
                columns: table => new
                {
                    Id = table.Column<int>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Uid = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Kind = table.Column<string>(type: "TEXT", maxLength: 64, nullable: false),
                    Subject = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Element = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    IsDeletion = table.Column<bool>(type: "INTEGER", nullable: false),
                    Request = table.Column<string>(type: "TEXT", maxLength: 4194304, nullable: false),
                    State = table.Column<string>(type: "TEXT", maxLength: 32, nullable: false),
                    Status = table.Column<string>(type: "TEXT", maxLength: 1048576, nullable: false),
                    Attempts = table.Column<int>(type: "INTEGER", nullable: false),
                    CreatedAt = table.Column<long>(type: "INTEGER", nullable: false),
                    StartedAt = table.Column<long>(type: "INTEGER", nullable: true),
                    FinishedAt = table.Column<long>(type: "INTEGER", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Jobs", x => x.Id);
                });

            migrationBuilder.CreateIndex(
                name: "IX_Galleries_Kind_Name",
                table: "Galleries",
                columns: new[] { "Kind", "Name" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_InstalledBackends_NodeId_Name",
                table: "InstalledBackends",
                columns: new[] { "NodeId", "Name" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_InstalledModels_NameKey",
                table: "InstalledModels",
                column: "NameKey",
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_Jobs_Uid",
                table: "Jobs",
                column: "Uid",
                unique: true);
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "Galleries");

            migrationBuilder.DropTable(
                name: "InstalledBackends");

            migrationBuilder.DropTable(
                name: "InstalledModels");

            migrationBuilder.DropTable(
                name: "Jobs");
        }
    }
}
